"""Whether the server serves: what `/health` says, on the port of the dashboard and on that of metrics.

starting   the log is read; clients cannot connect yet                    503
ok         clients are served                                             200
degraded   the log is lost, does not get on, or is being read again       503
stopping   no new connections                                             503
"""

from __future__ import annotations

from collections.abc import Callable

from flo.server.http import Page, json_page


class Health:
    """`trouble` tells why an open server cannot serve; None when it can."""

    def __init__(self) -> None:
        self.phase = "starting"
        self.trouble: Callable[[], str | None] = lambda: None

    @property
    def status(self) -> str:
        return "degraded" if self.phase == "ok" and self.trouble() is not None else self.phase

    def page(self, **more: object) -> Page:
        status = self.status
        body: dict[str, object] = {"status": status, **more}
        reason = self.trouble() if status == "degraded" else None
        if reason is not None:
            body["reason"] = reason
        return json_page(200 if status == "ok" else 503, body)
