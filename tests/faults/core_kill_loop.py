"""kill -9 of a core service under mixed load, again and again: nothing that was acknowledged may be lost.

    FLO_KILLS=200 FLO_SEED=7 FLO_CLOCK=1 FLO_DURABILITY=async_flush python -m tests.faults.core_kill_loop

Seven client processes work on keys, counters, transactions, a queue, a stream and its group; the eighth watches leases
to the millisecond. Each keeps a journal of intents and acknowledgements. With FLO_CLOCK the wall clock is set back ten
minutes at times, in a running server and over a restart. The seed decides what clients ask for; the moments of the
kills are the machine's.
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
from collections import Counter
from pathlib import Path
from typing import Any, Final

from flo.wire import calls
from tests.faults.core_client import CoreClient, Refused
from tests.faults.core_leases import ACK_TIMEOUT_MS as LEASE_MS
from tests.faults.core_load import ACK_TIMEOUT_MS, GROUP, GROUP_SETTINGS, QUEUE, STREAM, name_of
from tests.faults.core_oracle import Final as FinalState
from tests.faults.core_oracle import JournalReader, Told, id_of, wrong
from tests.faults.core_server import TEN_MINUTES_MS, CoreServer
from tests.support.flo_command import COMMAND_SECONDS, ROOT, flo_command

LOADS: Final = 7
PAUSE_SECONDS: Final = 0.7  # between a start and the next kill, on average
DRAIN_SECONDS: Final = 60.0
LAST_LEASE_MS: Final = 600_000


class CoreKillLoop:
    def __init__(self, folder: Path, seed: int, *, kills: int, clock: bool, durability: str = "sync") -> None:
        self.folder = folder
        self.seed = seed
        self.kills = kills
        self.clock = clock
        self.server = CoreServer(folder, clock=clock, storage=f'durability = "{durability}"')
        self.figures: Counter[str] = Counter()
        self.problems: list[str] = []
        self._random = random.Random(seed)
        self._never = threading.Event()
        self._loads: list[subprocess.Popen[bytes]] = []
        self._readers = [JournalReader(self._journal(f"load{number}")) for number in range(LOADS)]
        self._told: list[Told] = []
        self._acknowledged: Counter[str] = Counter()
        self._last_id = (0, 0)
        self._last_index = 0

    # -- the whole

    def run(self) -> Counter[str]:
        """Raises AssertionError with everything that was wrong."""
        self.server.start()
        try:
            for number in range(LOADS):
                self._start("tests.faults.core_load", f"load{number}")
            self._start("tests.faults.core_leases", "leases")
            while self.figures["kills"] < self.kills:
                self._never.wait(0.1 + self._random.expovariate(1 / PAUSE_SECONDS))
                self._end_server()
                if self.problems:
                    break
            self._end_loads()
            self._judge()
        finally:
            for load in self._loads:
                load.kill()
                load.wait()
            self.server.close()
        assert not self.problems, f"seed {self.seed}, in {self.folder}:\n" + "\n".join(self.problems[:40])
        return self.figures

    def _journal(self, name: str) -> Path:
        return self.folder / f"{name}.journal"

    def _start(self, module: str, name: str) -> None:
        words = [str(self.server.port), str(self._journal(name)), name, str(self.seed)]
        with open(self.folder / f"{name}.err", "w") as errors:
            self._loads.append(
                subprocess.Popen([sys.executable, "-m", module, *words], cwd=ROOT, stderr=errors)
            )  # fmt: skip

    def _end_server(self) -> None:
        if self.clock and self._random.random() < 0.5:
            self.server.signal(self._random.choice([signal.SIGUSR1, signal.SIGUSR2]))
            self.figures["clocks set"] += 1
            self._never.wait(self._random.random() / 2)
        self._read_journals()
        if self._random.random() < 0.1:
            if self.server.stop():
                self.problems.append(f"a planned stop failed:\n{self.server.log}")
            self.figures["planned stops"] += 1
        else:
            self.server.kill()
            self.figures["kills"] += 1
        offset = -TEN_MINUTES_MS if self.clock and self._random.random() < 0.5 else 0
        self.figures["restarts with the clock set back"] += offset < 0
        self.server.start(offset)
        with self.server.connect() as client:
            self._look(client)

    def _end_loads(self) -> None:
        for load in self._loads:
            load.terminate()
        for load in self._loads:
            code = load.wait(COMMAND_SECONDS)
            if code:
                errors = "".join(path.read_text() for path in sorted(self.folder.glob("*.err")))
                self.problems.append(f"a client ended with {code}:\n{errors}")

    # -- at each restart

    def _read_journals(self) -> None:
        """What had been acknowledged before now must be there from now on."""
        said = self._acknowledged
        for reader in self._readers:
            for told in reader.read():
                self._told.append(told)
                if not told.ok:
                    continue
                if "version" in told.result:
                    self._last_index = max(self._last_index, told.result["version"])
                if told.op == "incr" and told.arguments["key"] == "c-all":
                    said["counted"] += told.arguments["delta"]
                elif told.op == "enqueue":
                    said["enqueued"] += len(told.arguments["names"])
                elif told.op == "append":
                    said["appended"] += len(told.arguments["names"])
                    self._last_id = max(self._last_id, id_of(told.result["last"]))
                elif told.op == "ack":
                    said["acked"] += len(set(told.arguments["seqs"])) - len(told.result["missing"])

    def _look(self, client: CoreClient) -> None:
        said = self._acknowledged
        found: dict[str, int] = {}
        if said["counted"]:
            found["counted"] = int(client.call(calls.KV_GET, key=b"c-all").value)
        if said["enqueued"]:
            stats = client.call(calls.QUEUE_STATS, queue=QUEUE)
            found |= {"enqueued": stats.enqueued, "acked": stats.acked}
        if said["appended"]:
            info = client.call(calls.STREAM_INFO, stream=STREAM)
            found["appended"] = info.records
            if id_of(info.last_id) < self._last_id:
                self.problems.append(f"the last id is {info.last_id}, and {self._last_id} was acknowledged")
        for what, count in found.items():
            if count < said[what]:
                self.problems.append(f"{what}: {count}, and {said[what]} were acknowledged before the last kill")
        status = client.call(calls.SERVER_STATUS)
        if status.last_index < self._last_index:
            self.problems.append(f"the log ends at {status.last_index}, and {self._last_index} was acknowledged")

    # -- the end

    def _judge(self) -> None:
        self._read_journals()
        for reader in self._readers:
            self._told += reader.rest()
        with self.server.connect() as client:
            self._look(client)
            final = self._final(client)
        self.problems += wrong(self._told, final)
        leases = self._journal("leases").read_text().splitlines()
        for line in map(json.loads, leases):
            if "wrong" in line:
                self.problems.append(line["wrong"])
            else:
                self.figures["leases ended"] += line["ended"]
                self.figures["latest lease ms"] = line["latest"]
        for told in self._told:
            self.figures[f"{told.op} {told.status}"] += 1
        self.figures["messages left"] = len(final.messages)
        self.figures["dead letters"] = len(final.dead)
        self.figures["records"] = len(final.records)
        self.figures["snapshots"] = len(list((self.server.data / "00000" / "snaps").glob("*")))
        code = self.server.stop()
        if code:
            self.problems.append(f"the server ended with {code}:\n{self.server.log}")
        env = {**os.environ, "HOME": str(self.folder)}
        verified = subprocess.run([*flo_command(), "log", "verify", self.server.data], env=env, capture_output=True)
        if verified.returncode:
            self.problems.append(f"flo log verify: {verified.stdout.decode()}{verified.stderr.decode()}")

    def _final(self, client: CoreClient) -> FinalState:
        final = FinalState()
        keys = sorted({told.arguments["key"] for told in self._told if "key" in told.arguments})
        keys += [f"{key}-{what}" for key in keys if key.startswith("p-") for what in ("other", "count")]
        for key in keys:
            try:
                entry = client.call(calls.KV_GET, key=key.encode())
            except Refused:
                continue  # there is no such key
            if entry.kind == "counter":
                final.counts[key] = int(entry.value)
            else:
                final.values[key] = (name_of(entry.value), entry.version)
        self._drain_queue(client, final)
        self._drain_stream(client, final)
        return final

    def _drain_queue(self, client: CoreClient, final: FinalState) -> None:
        for _ in self._tries():
            found = client.call(
                calls.QUEUE_DEQUEUE, queue=QUEUE, count=100, visibility_ms=LAST_LEASE_MS, wait_ms=200
            )  # fmt: skip
            for message in found.messages:
                if message.seq in final.messages:
                    self.problems.append(f"message {message.seq} came twice within a lease of ten minutes")
                final.messages[message.seq] = name_of(message.payload)
            if client.call(calls.QUEUE_STATS, queue=QUEUE).pending == len(final.messages):
                break
        else:
            self.problems.append("the queue's messages do not all come")
        cursor = ""
        while True:
            page = client.call(calls.QUEUE_DLQ_LIST, queue=QUEUE, limit=1_000, cursor=cursor)
            final.dead |= {letter.seq: name_of(letter.payload) for letter in page.entries}
            cursor = page.cursor
            if not page.has_more:
                return

    def _drain_stream(self, client: CoreClient, final: FinalState) -> None:
        after = "0-0"
        while True:
            page = client.call(calls.STREAM_READ, stream=STREAM, after=after, limit=1_000)
            final.records += [(record.id, name_of(record.payload)) for record in page.records]
            after = page.next
            if not page.has_more:
                break
        for _ in self._tries():
            found = client.call(
                calls.GROUP_READ, stream=STREAM, group=GROUP, consumer="end", limit=1_000, wait_ms=200, **GROUP_SETTINGS
            )
            ids = [record.id for record in found.records]
            final.pending |= {record.id: name_of(record.payload) for record in found.records}
            if ids:
                client.call(calls.GROUP_ACK, stream=STREAM, group=GROUP, ids=ids)
            info = client.call(calls.GROUP_INFO, stream=STREAM, group=GROUP)
            if not info.pending and not info.lag:
                return
        self.problems.append("the group's records do not all come")

    def _tries(self) -> Any:
        """As many as take all leases of clients to end, and then some."""
        assert max(LEASE_MS, ACK_TIMEOUT_MS) / 1_000 < DRAIN_SECONDS
        for _ in range(int(DRAIN_SECONDS / 0.2)):
            yield None


def main() -> None:
    kills = int(os.environ.get("FLO_KILLS", "200"))
    seed = int(os.environ.get("FLO_SEED") or random.SystemRandom().randrange(1_000_000))
    sys.stderr.write(f"seed {seed}\n")
    with tempfile.TemporaryDirectory(prefix="flo-") as folder:
        loop = CoreKillLoop(
            Path(folder), seed, kills=kills, clock=bool(os.environ.get("FLO_CLOCK")),
            durability=os.environ.get("FLO_DURABILITY", "sync"),
        )  # fmt: skip
        figures = loop.run()
    sys.stderr.write(f"{dict(sorted(figures.items()))}\n")


if __name__ == "__main__":
    main()
