"""What `flow(…)` declares, as it stands in the parameters of the action that starts a task.

The parameters of an action of kind `flow` are the JSON object
`{"flow": "label::symbol", "args": {…}, "options": {…}}`, options being a FlowOptions without its defaults.
"""

from __future__ import annotations

import msgspec


class RetryPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`retry(…)` of the prelude. `on` lists error kinds; None means the default of what is retried: `connector`
    for actions, every kind but `cancelled` and `bad_argument` for flows."""

    max_attempts: int = 3  # attempts in all, the first included
    backoff: str = "exponential"  # or "constant"
    initial: int = 1_000  # ms before the second attempt
    max: int = 60_000  # ms, the longest pause
    within: int | None = None  # ms from the first attempt's start; no attempt begins later
    on: list[str] | None = None

    def delay_ms(self, attempt: int) -> int:
        """The pause after failed attempt number `attempt` (1-based): initial, doubled each time if exponential."""
        if self.backoff == "constant":
            return min(self.initial, self.max)
        return min(self.initial << min(attempt - 1, 40), self.max)


class FlowOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    timeout: int | None = None  # ms
    retry: RetryPolicy | None = None
    resources: bool = False  # the task begins with action 0, `resources.open`
    exit: bool = False  # there is an on_exit function
    detached: bool = False


class FlowParams(msgspec.Struct, frozen=True, omit_defaults=True):
    flow: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    options: FlowOptions = FlowOptions()
