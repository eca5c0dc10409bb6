"""Every bound that a run, an action or a call can meet, by name. Sizes are in bytes, times in ms."""

from __future__ import annotations

PAYLOAD_SOFT_BYTES = 64 * 1024  # above it a payload goes to a blob (design.md §6 point 10)
PAYLOAD_HARD_BYTES = 16 * 1024 * 1024  # above it the action fails with too_large
PARAMS_RECORDED_BYTES = 1024  # longer parameters are kept in the history as their SHA-256
BUNDLE_BYTES = 16 * 1024 * 1024
BUNDLE_FILES = 1_000
STARLARK_STEPS = 300_000_000  # loop rounds and calls of one evaluation
EVALUATION_BYTES = 1024 * 1024 * 1024  # by which the process may grow during one evaluation
CALL_DEPTH = 1_000
NESTED_FLOWS = 200  # flows called directly inside one another
VALUE_DEPTH = 64  # nesting of a value that crosses
CRASHES_BEFORE_PAUSE = 3
SPECULATION_BYTES = 8 * 1024 * 1024
OUTPUT_LINES = 100_000  # prints, logs and progress of one run
OPEN_ACTIONS = 100_000  # of one run: children, timers, requests that have not ended
SIGNAL_TYPE_BYTES = 128
INBOX_MESSAGES = 100_000  # messages or signals of one run that nobody has taken
COMMAND_EVENTS = 4_096  # events' work of one command (design.md §5.1)
CANCEL_GRACE_MS = 10_000
STOP_GRACE_MS = 5_000
HTTP_REDIRECTS = 5
HTTP_TIMEOUT_MS = 30_000
GUESTS = 256  # processes attached to one owner
