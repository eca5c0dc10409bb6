"""kill -9 at random moments, over real processes on one data directory, and what must hold afterwards.

    FLO_KILLS=300 FLO_SEED=7 python -m tests.faults.kill_loop

Commands come and go as a person's would: runs that are followed or detached, signals, cancels, lists, resumes.
Whoever owns the directory is killed, and guests are, and none of the others may fail for it. The seed decides what is
started and killed; the moments are the machine's, so a seed does not repeat a failure exactly.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from flo.api.grid import RunView
from flo.client.session import Session
from flo.connectors.testing import Answer, Recorded, RecordingServer
from tests.support.flo_command import COMMAND_SECONDS, flo_command

SCRIPT = Path(__file__).with_suffix(".flow")
MARK = "FLO_KILL_LOOP"  # in the environment of every process, so that what is left over is found
COUNT = 8  # messages of a pair
FOLLOWERS = 4  # at once
PAUSE_SECONDS = 0.6  # between two kills, on average
DRAIN_SECONDS = 120.0


@dataclass
class Command:
    """A `flo` command that is running, with files for what it says."""

    words: list[str]
    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    on_end: Callable[[Command], None] | None = None
    killed: bool = False

    @property
    def said(self) -> str:
        return self.out.read_text()

    def __str__(self) -> str:
        return f"$ flo {' '.join(self.words)}\nexit {self.process.returncode}\n{self.said}\n{self.err.read_text()}"


@dataclass
class Journal:
    """What was asked for, and what was acknowledged."""

    started: dict[str, str] = field(default_factory=dict)  # id → flow
    acknowledged: set[str] = field(default_factory=set)  # ids of runs
    results: dict[str, Any] = field(default_factory=dict)  # that somebody was shown
    said: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)  # by listener: word, acknowledged
    cancels: set[str] = field(default_factory=set)  # acknowledged
    problems: list[str] = field(default_factory=list)


class KillLoop:
    def __init__(self, folder: Path, seed: int, *, kills: int) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.seed = seed
        self.kills = kills
        self.random = random.Random(seed)
        self.journal = Journal()
        self.figures: Counter[str] = Counter()
        self.live: list[Command] = []
        self.token = f"{os.getpid()}-{seed}"
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("FLO_")} | {
            MARK: self.token, "HOME": str(folder), "FLO_DATA_DIR": str(self.data), "NO_COLOR": "1", "NO_PROXY": "*",
            "no_proxy": "*",
        }  # fmt: skip
        self._numbers: Counter[str] = Counter()
        self._clock = threading.Lock()
        self._now = 0  # counts requests and kills, so that they have an order
        self._requests: dict[str, list[tuple[int, bool]]] = {}  # by path and key: when, and whether it was answered
        self._deaths: list[tuple[int, int]] = []  # of processes: not before, not after
        self._stopped = threading.Event()

    # -- the whole

    def run(self) -> Counter[str]:
        """Kills, lets everything finish, and checks. Raises AssertionError with every problem."""
        began = time.monotonic()
        with RecordingServer() as server:
            server.on("/once", self._answer)
            server.on("/again", self._answer)
            self.url = server.url
            try:
                while self.figures["kills"] < self.kills:
                    self._round()
                killed_for = time.monotonic() - began
                self._drain()
                self._check()
            finally:
                for command in self.live:
                    command.process.kill()
                    command.process.wait()
        self.figures["seconds of kills"] = int(killed_for)
        self.figures["seconds"] = int(time.monotonic() - began)
        assert not self.journal.problems, f"seed {self.seed}:\n" + "\n".join(self.journal.problems)
        return self.figures

    def _round(self) -> None:
        if not self._acknowledged("listener") and not any("listener" in command.words[1] for command in self.live):
            self._start_run("listener", "--detach")
        while len(self.live) < FOLLOWERS:
            self._begin_something()
        self._stopped.wait(self.random.expovariate(1 / PAUSE_SECONDS))
        self._reap()
        self._kill_one()
        self._reap()

    # -- what is started

    def _begin_something(self) -> None:
        what = self.random.choices(
            ["run", "detached", "pair", "resume", "signal", "cancel", "list"], [9, 3, 1, 4, 6, 1, 1]
        )[0]
        getattr(self, f"_begin_{what}")()

    def _begin_run(self) -> None:
        flows = ["steps", "fragile", "requests", "timers", "family", "listener", "workshop", "idler", "turns"]
        self._start_run(self.random.choices(flows, [2, 1, 3, 1, 2, 1, 2, 1, 1])[0])

    def _begin_detached(self) -> None:
        self._start_run(self.random.choice(["steps", "requests", "family", "workshop", "listener"]), "--detach")

    def _begin_pair(self) -> None:
        """Two runs that speak to each other. The sender is started when the receiver certainly is there."""

        def then(command: Command) -> None:
            if receiver in self.journal.acknowledged:
                self._start_run("sender", "--arg", f"to={receiver}", "--arg", f"count={COUNT}", id=f"to-{receiver}")
            else:
                del self.journal.started[receiver]  # it may be there, and waits for ever

        receiver = self._start_run("receiver", "--arg", f"count={COUNT}", "--detach", then=then)

    def _begin_resume(self) -> None:
        self._start(["resume", "--format", "json"])

    def _begin_list(self) -> None:
        self._start(["runs", "list", "--format", "json"])

    def _begin_signal(self) -> None:
        listeners = self._acknowledged("listener")
        if listeners:
            self._say(self.random.choice(listeners))

    def _say(self, listener: str, word: str = "") -> None:
        """One at a time to each listener, so that the order of what it hears is known."""
        said = self.journal.said.setdefault(listener, [])
        if any(command.words[:3] == ["runs", "signal", listener] for command in self.live):
            return
        word = word or f"word {len(said)}"

        def on_end(command: Command) -> None:
            said.append((word, command.process.returncode == 0))

        self._start(["runs", "signal", listener, "say", json.dumps(word)], on_end)

    def _begin_cancel(self) -> None:
        idlers = self._acknowledged("idler")
        if idlers:
            self._cancel(self.random.choice(idlers))

    def _cancel(self, idler: str) -> None:
        """An acknowledged one is not repeated: the idler waits for ever if it is lost."""
        if idler in self.journal.cancels:
            return

        def on_end(command: Command) -> None:
            if command.process.returncode == 0:
                self.journal.cancels.add(idler)

        self._start(["runs", "cancel", idler], on_end)

    def _acknowledged(self, flow: str) -> list[str]:
        return sorted(id for id in self.journal.acknowledged if self.journal.started[id] == flow)

    def _start_run(self, flow: str, *words: str, id: str = "", then: Callable[[Command], None] | None = None) -> str:
        self._numbers[flow] += 1
        id = id or f"{flow}-{self._numbers[flow]}"
        self.journal.started[id] = flow
        if flow == "requests":
            words = (*words, "--arg", f"url={self.url}")

        def on_end(command: Command) -> None:
            if command.said:
                self.journal.acknowledged.add(id)
                with_result = "--detach" not in words and command.process.returncode >= 0
                if with_result and (view := json.loads(command.said))["status"] == "completed":
                    self.journal.results[id] = view["result"]
            if then is not None:
                then(command)

        self._start(["run", f"{SCRIPT}::{flow}", "--id", id, "--format", "json", *words], on_end)
        return id

    def _start(self, words: list[str], on_end: Callable[[Command], None] | None = None) -> Command:
        number = self.figures["commands"] = self.figures["commands"] + 1
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with out.open("wb") as to_out, err.open("wb") as to_err:
            process = subprocess.Popen(
                [*flo_command(), *words], stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err, env=self._env,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        command = Command(words, process, out, err, on_end)
        self.live.append(command)
        return command

    # -- who dies, and how the others end

    def _kill_one(self) -> None:
        """The owner mostly, else any guest; neither with what it has started, which must end by itself."""
        candidates = [command for command in self.live if command.process.poll() is None]
        if not candidates:
            return
        owner = next((command for command in candidates if command.process.pid == self._owner()), None)
        victim = owner if owner is not None and self.random.random() < 0.7 else self.random.choice(candidates)
        before = self._tick()
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait(COMMAND_SECONDS)
        self._deaths.append((before, self._tick()))
        victim.killed = victim.process.returncode == -signal.SIGKILL
        if victim.killed:
            self.figures["kills"] += 1
            self.figures["kills of an owner" if victim is owner else "kills of others"] += 1
            if len(candidates) > 1 and victim is owner:
                self.figures["kills of an owner beside others"] += 1

    def _owner(self) -> int:
        try:
            return int(json.loads((self.data / "lock").read_bytes())["pid"])
        except (OSError, ValueError):
            return 0  # nobody has been here, or it is being written

    def _reap(self) -> None:
        for command in list(self.live):
            if command.process.poll() is not None:
                self.live.remove(command)
                self._ended(command)

    def _ended(self, command: Command) -> None:
        code = command.process.returncode
        if not command.killed and not self._as_it_should(command, code):
            self.journal.problems.append(f"a command failed: {command}")
        if command.on_end is not None:
            command.on_end(command)
        for file in (command.out, command.err):
            file.unlink()

    def _as_it_should(self, command: Command, code: int) -> bool:
        words, errors = command.words, command.err.read_text()
        if words[:2] in (["runs", "signal"], ["runs", "cancel"]):
            # What may not be repeated says so when the owner died over it. Runs that are over refuse both.
            return code in (0, 4) or (code == 3 and words[2] in self._over)
        if "Error:" in errors or "Traceback" in errors:
            return False
        return code in ({0, 1, 6} if words[0] == "resume" else {0, 6} if "idler" in words[1] else {0})

    @property
    def _over(self) -> set[str]:
        """Runs that somebody has asked to end."""
        stopped = {id for id, said in self.journal.said.items() if any(word == "stop" for word, _ in said)}
        return stopped | {id for id, flow in self.journal.started.items() if flow == "idler"}

    # -- the server

    def _answer(self, request: Recorded) -> Answer:
        key = f"{request.path} {request.json}"
        with self._clock:
            self._now += 1
            seen = self._requests.setdefault(key, [])
            number = len(seen) + 1
            drops = request.path == "/again" and number == 1 and ord(request.json[-1]) % 2 == 0
            seen.append((self._now, not drops))
        if drops:
            return Answer(drop="silent")
        return Answer(json=number, delay_ms=sum(request.body) % 150)

    def _tick(self) -> int:
        with self._clock:
            self._now += 1
            return self._now

    # -- the end

    def _drain(self) -> None:
        """Nobody is killed any more: every run comes to its end."""
        until = time.monotonic() + DRAIN_SECONDS
        while self.live and time.monotonic() < until - DRAIN_SECONDS / 2:
            self._reap()
            if all(self._lasts(command) for command in self.live):
                break
            self._stopped.wait(0.02)
        views = {view["id"]: view for view in self._ask(["runs", "list", "--format", "json"])}
        for id, view in views.items():
            flow = view["flow"].rpartition("::")[2]
            self.journal.started.setdefault(id, flow)  # also detached ones, and receivers nobody was sure of
            self.journal.acknowledged.add(id)
            if view["status"] == "running":
                if flow == "listener":
                    self._say(id, "stop")
                elif flow == "idler":
                    self._cancel(id)
                elif flow == "receiver" and f"to-{id}" not in views:
                    self._start_run("sender", "--arg", f"to={id}", "--arg", f"count={COUNT}", id=f"to-{id}")
        self._start(["resume", "--format", "json"])
        while self.live and time.monotonic() < until:
            self._reap()
            self._stopped.wait(0.02)
        for command in self.live:
            self.journal.problems.append(f"still running at the end: {command}")

    @staticmethod
    def _lasts(command: Command) -> bool:
        return command.words[0] in ("run", "resume")

    def _ask(self, words: list[str]) -> Any:
        done = subprocess.run(
            [*flo_command(), *words], env=self._env, cwd=self.folder, capture_output=True, timeout=COMMAND_SECONDS,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            self.journal.problems.append(f"{words}: exit {done.returncode}: {done.stderr.decode()}")
            return [] if "list" in words else {}
        return json.loads(done.stdout)

    # -- what must hold

    def _check(self) -> None:
        with Session(str(self.data)) as session:
            views = {view.id: view for view in session.call(lambda grid: grid.list())}
        counted = self._ask(["run", f"{SCRIPT}::store", "--format", "json"]).get("result") or {}
        for id in sorted(self.journal.acknowledged - views.keys()):
            self._wrong(f"run {id} was acknowledged and is lost")
        expected: dict[str, int] = {"bench": 0}
        for id, view in sorted(views.items()):
            self.figures["runs"] += 1
            self._check_run(id, view, expected)
        for key in sorted(expected.keys() | counted.keys()):
            if expected.get(key, 0) != counted.get(key, 0):
                self._wrong(f"{key} was incremented {counted.get(key, 0)} times, not {expected.get(key, 0)}")
        self.figures["increments"] = sum(counted.values())
        self._check_server()
        left = [str(path) for path in (self.data / "resources").glob("*")]
        if left:
            self._wrong(f"tempdirs are left: {left}")
        if pids := self._marked():
            self._wrong(f"processes are left: {pids}")
        verified = subprocess.run([*flo_command(), "log", "verify", self.data], env=self._env, capture_output=True)
        if verified.returncode != 0:
            self._wrong(f"flo log verify: {verified.stdout.decode()}{verified.stderr.decode()}")

    def _check_run(self, id: str, view: RunView, expected: dict[str, int]) -> None:
        flow = view.flow.rpartition("::")[2]
        if view.status != ("cancelled" if flow == "idler" else "completed"):
            self._wrong(f"run {id} is not over: {view}")
            return
        result = json.loads(bytes(view.result)) if view.result is not None else None
        if id in self.journal.results and self.journal.results[id] != result:
            self._wrong(f"run {id} showed {self.journal.results[id]} and has {result}")
        getattr(self, f"_check_{flow}")(id, result, expected)

    def _check_steps(self, id: str, result: Any, expected: dict[str, int]) -> None:
        expected[f"steps/{id}"] = 12
        self._equal(id, result, 12)

    def _check_fragile(self, id: str, result: Any, expected: dict[str, int]) -> None:
        expected[f"attempts/{id}"] = 3
        self._equal(id, result, 3)

    def _check_timers(self, id: str, result: Any, expected: dict[str, int]) -> None:
        self._equal(id, result, [1, True])

    def _check_family(self, id: str, result: Any, expected: dict[str, int]) -> None:
        for n, count in ((2, 2), (3, 5), (4, 8), (6, 6)):
            expected[f"steps/{id}/0.{n}"] = count
        expected[f"attempts/{id}/0.5"] = 3
        expected[f"steps/{id}/0.1"] = 12
        self._equal(id, result, [2, 5, 8, 3, 6])

    def _check_workshop(self, id: str, result: Any, expected: dict[str, int]) -> None:
        self._equal(id, result, [1, 0, "string"])

    def _check_idler(self, id: str, result: Any, expected: dict[str, int]) -> None:
        expected[f"exits/{id}"] = 1

    def _check_turns(self, id: str, result: Any, expected: dict[str, int]) -> None:
        expected[f"turns/{id}"] = 5
        self._equal(id, result, 5)

    def _check_receiver(self, id: str, result: Any, expected: dict[str, int]) -> None:
        self.figures["messages"] += COUNT
        self._equal(id, result, list(range(COUNT)))

    def _check_sender(self, id: str, result: Any, expected: dict[str, int]) -> None:
        self._equal(id, result, None)

    def _check_listener(self, id: str, heard: list[str], expected: dict[str, int]) -> None:
        said = [(word, sure) for word, sure in self.journal.said.get(id, []) if word != "stop"]
        self.figures["signals acknowledged"] += sum(sure for _, sure in said)
        self.figures["signals"] += len(said)
        if lost := [word for word, sure in said if sure and word not in heard]:
            self._wrong(f"{id} was told {lost}, which is lost")
        self._equal(id, heard, [word for word, _ in said if word in heard])

    def _check_requests(self, id: str, told: list[Any], expected: dict[str, int]) -> None:
        for n, answer in enumerate(told):
            seen = len(self._requests.get(f"/once {id}:{n}", []))
            if answer == "interrupted":
                self.figures["interrupted"] += 1
            elif answer != 1 or seen != 1:
                self._wrong(f"request {n} of {id} was answered {answer!r}, and seen {seen} times")

    def _check_server(self) -> None:
        for key, seen in self._requests.items():
            self.figures["requests"] += 1
            if key.startswith("/once") and len(seen) > 1:
                self._wrong(f"request {key} came {len(seen)} times")
            for (at, answered), (following, _) in pairwise(seen):
                self.figures["declared retries"] += 1
                died = any(before < following and after > at for before, after in self._deaths)
                if answered and not died:
                    self._wrong(f"request {key} was answered, nobody died, and it came again")

    def _marked(self) -> list[int]:
        """Processes of this loop that live."""
        wanted = f"{MARK}={self.token}".encode()
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    if wanted in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                        found.append(int(name))
                except OSError:
                    continue  # it has ended, or is another user's
        return found

    def _equal(self, id: str, result: Any, expected: Any) -> None:
        if result != expected:
            self._wrong(f"run {id} has the result {result!r}, not {expected!r}")

    def _wrong(self, problem: str) -> None:
        self.journal.problems.append(problem)


def main() -> None:
    seed = int(os.environ.get("FLO_SEED") or random.SystemRandom().randrange(1_000_000))
    kills = int(os.environ.get("FLO_KILLS") or 300)
    sys.stderr.write(f"seed {seed}, {kills} kills\n")
    with tempfile.TemporaryDirectory(prefix="flo-") as folder:
        try:
            figures = KillLoop(Path(folder), seed, kills=kills).run()
        except AssertionError as failed:
            sys.exit(str(failed))
    for name, value in figures.items():
        sys.stdout.write(f"{value:8,} {name}\n")


if __name__ == "__main__":
    main()
