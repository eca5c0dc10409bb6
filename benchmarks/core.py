"""The core service, measured: `python benchmarks/core.py [--json FILE] [--repeat N] [--only WORD] [--quick]`.

Each work is measured with the modules compiled and interpreted, side by side, and beside a local redis-server with
`appendfsync always` in the same run where there is one. Every figure is the median of at least five repetitions; the
builds and Redis take turns, so that a noisy minute meets all of them. Writes are durable: `sync`, in fresh directories.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from core_servers import FloServer, RedisServer, Server, benchmark  # a script's own folder
from report import Figure, median_of, show, sync_ms

HERE = Path(__file__).parent
ROOT = HERE.parent
ROWS = str(HERE / "core_rows.py")
REPEAT = 5
QUICK = 20  # times less of everything
XADD = ("xadd", "events", "*", "field", "v" * 64)


class Bench:
    """Measures on every build, `compiled` and `interpreted`, and collects the figures."""

    def __init__(self, builds: dict[str, dict[str, str]], repeat: int, only: str, share: int) -> None:
        self._builds = builds
        self._repeat = repeat
        self._only = only
        self._share = share
        self.figures: list[Figure] = []
        self.redis = shutil.which("redis-server") is not None

    def count(self, whole: int) -> int:
        return whole // self._share

    def row(self, build: str, *words: str) -> object:
        done = subprocess.run(
            [sys.executable, ROWS, *words], check=True, capture_output=True, env=self._builds[build]
        )  # fmt: skip
        return json.loads(done.stdout or b"null")

    def rows(self, row: str, count: int, works: list[tuple[str, str, str, str, float, str]]) -> None:
        """Measures a row of core_rows.py; each work is (name, field, unit, peer, aim, better)."""
        works = [work for work in works if self._only in work[0]]
        if not works:
            return
        samples: dict[str, list[object]] = {build: [] for build in self._builds}
        for _ in range(self._repeat):
            for build in self._builds:
                samples[build].append(self.row(build, row, str(self.count(count))))
        for name, field, unit, peer, aim, better in works:
            for build, taken in samples.items():
                values = [float(s[field]) if isinstance(s, dict) else float(s) for s in taken]  # type: ignore[arg-type]
                self.add(f"{name} ({build})", values, unit, peer, aim, better)

    def add(self, work: str, values: list[float], unit: str, peer: str, aim: float, better: str) -> None:
        self.figures.append(Figure(work, median_of(values), unit, peer, aim, better))
        print(f"{work}: {self.figures[-1].value:,.3f} {unit}", file=sys.stderr)

    def served(
        self, name: str, count: int, words: tuple[str, ...], reference: str, *, ratio: float = 0.0, aim: float = 0.0,
        p50: bool = False,
    ) -> None:  # fmt: skip
        """Measures with redis-benchmark. The aim is a ratio to the local Redis where one is meant, else absolute."""
        if self._only not in name or shutil.which("redis-benchmark") is None:
            return
        count = self.count(count)
        place = 1 if p50 else 0
        samples: dict[str, list[float]] = {build: [] for build in self._builds}
        peers: list[float] = []
        with self._servers() as servers:
            for _ in range(self._repeat):
                for who, server in servers.items():
                    taken = benchmark(server.port, count, *words)[place]
                    (peers if who == "redis" else samples[who]).append(taken)
        peer = f"Redis here {median_of(peers):,.3f}" if peers else reference
        if ratio and peers:
            aim = ratio * median_of(peers)
        unit, better = ("ms", "less") if p50 else ("per s", "more")
        for build, values in samples.items():
            self.add(f"{name} ({build})", values, unit, peer, aim, better)

    @contextmanager
    def _servers(self) -> Iterator[dict[str, Server]]:
        servers: dict[str, Server] = {}
        try:
            for build, environment in self._builds.items():
                servers[build] = FloServer(environment).__enter__()
            if self.redis:
                servers["redis"] = RedisServer(dict(os.environ)).__enter__()
            yield servers
        finally:
            for server in servers.values():
                server.__exit__()

    def driven(self, name: str, script: str, count: int, unit: str, reference: str, aim: float) -> None:
        """Measures with a client of ours, a process that prints a rate, on a fresh server each time."""
        if self._only not in name:
            return
        samples: dict[str, list[float]] = {build: [] for build in self._builds}
        for _ in range(self._repeat):
            for build, environment in self._builds.items():
                with FloServer(environment) as server:
                    done = subprocess.run(
                        [sys.executable, str(HERE / script), str(server.port), str(self.count(count))],
                        check=True, capture_output=True, env=environment,
                    )  # fmt: skip
                    samples[build].append(float(done.stdout))
        for build, values in samples.items():
            self.add(f"{name} ({build})", values, unit, reference, aim, "more")

    def restarts(self, keys: int, entries: int) -> None:
        name = "restart with 1,000,000 keys"
        linear = f"restart with {self.count(entries):,} entries since the snapshot"
        for work, count, how in ((name, keys, "snapshot"), (linear, entries, "none")):
            if self._only not in work:
                continue
            folder = tempfile.mkdtemp(prefix="flo-bench-")
            try:
                first = next(iter(self._builds))
                self.row(first, "fill", str(self.count(count)), f"{folder}/data", how)
                for build in self._builds:
                    taken = [self.row(build, "restart", f"{folder}/data") for _ in range(self._repeat)]
                    seconds = [float(t["seconds"]) for t in taken]  # type: ignore[index,call-overload]
                    self.add(f"{work} ({build})", seconds, "s", "–", 2.0 if how == "snapshot" else 1e9, "less")
                    if how == "none":
                        rates = [float(t["bytes"]) / 1e6 / float(t["seconds"]) for t in taken]  # type: ignore[index,call-overload]
                        self.add(f"{work}, rate ({build})", rates, "MB/s", "–", 0.0, "more")
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def measure(bench: Bench, entries: int) -> list[Figure]:
    apple = "the reference system {} ns (Apple M)"
    bench.rows("log", 1_000_000, [("log append, per entry", "", "ns", apple.format(77), 115.5, "less")])
    bench.rows("kv", 20_000, [
        ("KV put", "put", "ns", apple.format(225), 337.5, "less"),
        ("KV get", "get", "ns", apple.format(84), 126, "less"),
        ("KV scan, per entry", "scan", "ns", apple.format(165), 247.5, "less"),
    ])  # fmt: skip
    bench.rows("store", 20_000, [
        ("KV put through the store, logged to memory", "put", "ns", "–", 3_000, "less"),
        ("KV get through the store", "get", "ns", "–", 1_000, "less"),
    ])  # fmt: skip
    bench.rows("message", 2_000_000, [("message between two threads, in batches", "", "ns", "35 ns", 52.5, "less")])
    bench.rows("writers", 200_000, [
        ("embedded, durable, 64 writers: KV puts", "", "per s", "–", 100_000, "more"),
    ])  # fmt: skip
    kv = ("-c", "50", "-r", "100000", "-d", "64")
    bench.served("SET, 50 clients, -P 1", 100_000, (*kv, "-P", "1", "-t", "set"), "Redis always 86,000", ratio=0.5)
    bench.served("SET, 50 clients, -P 16", 400_000, (*kv, "-P", "16", "-t", "set"), "Redis always 657,000", ratio=0.3)
    bench.served("GET, 50 clients, -P 1", 200_000, (*kv, "-P", "1", "-t", "get"), "Redis 104,000", ratio=0.5)
    bench.served("GET, 50 clients, -P 16", 800_000, (*kv, "-P", "16", "-t", "get"), "Redis 1,686,000", ratio=0.3)
    bench.served("queue, 8 producers, one at a time", 80_000, ("-c", "8", "-t", "lpush", "-d", "64"),
                 "Redis list 24,700, JetStream 5,600, pgqueuer 4,600", aim=17_000)  # fmt: skip
    bench.driven("queue, consume and ack, batches of 100", "core_consumers.py", 200_000, "messages/s",
                 "Redis streams 113,000", 60_000)  # fmt: skip
    bench.driven("stream append, 256 outstanding", "core_appender.py", 400_000, "per s",
                 "Redis 159,000, JetStream 7,000", 100_000)  # fmt: skip
    bench.served("XADD, 256 outstanding", 200_000, ("-c", "16", "-P", "16", *XADD), "–", ratio=0.3)
    bench.served("one append at a time, p50", 10_000, ("-c", "1", *XADD), "Redis 0.20", aim=0.25, p50=True)
    bench.restarts(1_000_000, entries)
    bench.rows("memory", 1_000_000, [
        ("memory of a 64-byte value under a 16-byte key", "", "bytes", "Redis about 130", 350, "less"),
    ])  # fmt: skip
    return bench.figures


@contextmanager
def builds(tree: str | None) -> Iterator[dict[str, dict[str, str]]]:
    """The environment in which `import flo` finds each build. `tree` is an unpacked compiled wheel, made when missing;
    without a compiler there is the interpreted build alone."""
    interpreted = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tempfile.mkdtemp(prefix="flo-bench-")
    try:
        if tree is None:
            tree = compiled_tree(Path(folder))
        if tree is None:
            yield {"interpreted": interpreted}
        else:
            yield {"compiled": {**os.environ, "PYTHONPATH": tree}, "interpreted": interpreted}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compiled_tree(folder: Path) -> str | None:
    print("building the compiled wheel …", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, env={**os.environ, "FLO_COMPILE": "1"}, capture_output=True, text=True)
    if done.returncode:
        print(f"not compiled: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    (wheel,) = folder.glob("*.whl")
    target = folder / "tree"
    shutil.unpack_archive(wheel, target, "zip")
    return str(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures as a list of objects")
    parser.add_argument("--repeat", type=int, default=REPEAT, help="repetitions of each measurement (at least 5)")
    parser.add_argument("--only", default="", metavar="WORD", help="only the works whose name holds WORD")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} times less of everything, to see that it works")
    parser.add_argument("--compiled", metavar="DIR", default=os.environ.get("FLO_COMPILED_TREE"),
                        help="an unpacked compiled wheel; else one is built")  # fmt: skip
    parser.add_argument("--entries", type=int, default=10_000_000, help="of the log that a restart reads")
    options = parser.parse_args()
    with builds(options.compiled) as found:
        bench = Bench(found, options.repeat, options.only, QUICK if options.quick else 1)
        show(measure(bench, options.entries), sync=sync_ms(), json_file=options.json)


if __name__ == "__main__":
    main()
