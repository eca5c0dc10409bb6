"""The worker: bundles, and the evaluation and replay of Starlark flows. It keeps nothing that is not in the log."""
