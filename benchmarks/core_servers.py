"""Servers under measurement: one of Flo, and a Redis that syncs always, both driven by redis-benchmark."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READY_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """A process on a port of its own, with a fresh folder; `with` starts and kills it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.folder = tempfile.mkdtemp(prefix="flo-bench-")
        self.port = free_port()
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def __enter__(self) -> Server:
        with Path(self.folder, "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env=self._environment, cwd=self.folder
            )  # fmt: skip
        ends = time.monotonic() + READY_SECONDS
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                    probe.sendall(b"*1\r\n$4\r\nPING\r\n")
                    if probe.recv(64).startswith(b"+PONG"):
                        return self
            except OSError:
                if time.monotonic() > ends or self._process.poll() is not None:
                    raise RuntimeError(Path(self.folder, "log").read_text()) from None
            time.sleep(0.05)

    def __exit__(self, *of: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class FloServer(Server):
    def command(self) -> list[str]:
        return [
            sys.executable, "-m", "flo", "server", "start", "--port", str(self.port), "--no-metrics", "--no-dashboard",
            "--data-dir", os.path.join(self.folder, "data"),
        ]  # fmt: skip


class RedisServer(Server):
    def command(self) -> list[str]:
        return [
            "redis-server", "--port", str(self.port), "--appendonly", "yes", "--appendfsync", "always", "--save", "",
            "--dir", self.folder,
        ]  # fmt: skip


def benchmark(port: int, count: int, *words: str) -> tuple[float, float]:
    """Requests per second and p50 in ms of one run of redis-benchmark."""
    done = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-n", str(count), "--csv", *words],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    (row,) = csv.DictReader(io.StringIO("\n".join(lines)))
    return float(row["rps"]), float(row["p50_latency_ms"])
