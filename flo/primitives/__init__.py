"""The deterministic machines, and the types of values that everybody above shares."""
