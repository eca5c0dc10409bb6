"""The `flo` command as a real process with a home, a data directory and a working directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
COMMAND_SECONDS = 60.0  # the longest that one command may take


def flo_command() -> list[str]:
    """The `flo` script beside this interpreter, as the installation made it; else this interpreter with the module."""
    script = Path(sysconfig.get_path("scripts")) / "flo"
    return [str(script)] if script.exists() else [sys.executable, "-m", "flo"]


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    argv: list[str]
    exit_code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"$ {' '.join(self.argv)}\nexit {self.exit_code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    @property
    def json(self) -> Any:
        """What `--format json` printed: one value."""
        return json.loads(self.out)

    def completed(self) -> Any:
        """The result of a `flo run --format json` that must have completed."""
        assert self.exit_code == 0, str(self)
        view = self.json
        assert view["status"] == "completed", str(self)
        return view["result"]


class Process:
    """A command in a process group of its own that is still running."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self._argv = argv
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip

    def kill(self) -> None:
        """kill -9 for the command and all that it started; it must still be running."""
        assert self._process.poll() is None, f"ended too early: {self.wait()}"
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=COMMAND_SECONDS)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> Done:
        out, err = self._process.communicate(timeout=COMMAND_SECONDS)
        return Done(self._argv, self._process.returncode, out, err)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate(timeout=COMMAND_SECONDS)


class FloCommand:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")} | {
            "HOME": str(folder / "home"), "FLO_DATA_DIR": str(self.data), "NO_COLOR": "1", "COLUMNS": "200",
            "LC_ALL": "C.UTF-8", "NO_PROXY": "*", "no_proxy": "*",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        }  # fmt: skip
        (folder / "home").mkdir(parents=True, exist_ok=True)
        self._processes: list[Process] = []

    def __call__(self, *words: str | Path, env: dict[str, str] | None = None) -> Done:
        """Runs `flo WORDS` to its end."""
        return self.start(*words, env=env).wait()

    def start(self, *words: str | Path, env: dict[str, str] | None = None) -> Process:
        argv = [*flo_command(), *map(str, words)]
        process = Process(argv, self.env | (env or {}), self.folder)
        self._processes.append(process)
        return process

    def example(self, name: str) -> Path:
        """The example by this name, copied into the folder, as a newcomer would."""
        return Path(shutil.copy(EXAMPLES / name, self.folder))

    def resumed(self, id: str) -> Any:
        """Resumes one run and gives its result."""
        return self("resume", id, "--format", "json").completed()

    def close(self) -> None:
        for process in self._processes:
            process.close()


def arguments(**values: Any) -> list[str]:
    """`--arg name=value` words; values that are no texts as JSON."""
    words = []
    for name, value in values.items():
        words += ["--arg", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return words
