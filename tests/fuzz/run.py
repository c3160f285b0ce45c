"""Fuzz one kind of input: `python tests/fuzz/run.py NAME --seconds 60 [--seed 0]`.

The inputs come from a seeded generator: seeds, damaged, and whatever gave a new outcome, damaged
again. They are tried in a process of their own, so that a crash is a finding like any other. What
fails is kept under --out; `--replay FILE` tries it again. Exit code 1 where something failed.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.mutator import damaged
from fuzz.targets import TARGETS, checked

LARGEST = 200_000
"""Bytes of an input."""

STUCK = 20.0
"""Seconds of processor time after which an input hangs, or a hundred times that by the clock: other
programs may have the machine."""

MOST_FAULTS = 20
"""Different ones, after which a run ends."""


def work(name: str, seed: str, until: float, current: Path, pipe: Any) -> None:
    """Try inputs until `until`; what is tried lies in `current`, what is found goes to `pipe`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the libraries have to say of each
    target, chance = TARGETS[name], random.Random(seed)
    files = [data for data in target.seeds() if len(data) <= LARGEST]
    for data in files:
        target.check(data)  # what loads at first counts for no input
    known: set[str] = set()
    tried = 0
    while time.monotonic() < until:
        data = b""
        try:
            data = damaged(chance, files, target.words)[:LARGEST]
            current.write_bytes(data)
            pipe.send(("at", tried, len(known)))
            outcome = re.sub(r"\d+|0x[0-9a-f]+|'[^']*'", "#", checked(target, data))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            pipe.send(("fault", data, kind, traceback.format_exc()))
            outcome = kind
        tried += 1
        if outcome not in known:
            known.add(outcome)
            files.append(data)
    pipe.send(("end", tried, len(known)))


def cpu_seconds(pid: int | None) -> float:
    """Of a process; 0 where it has ended, or where no system tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Run:
    """One kind of input for some time."""

    def __init__(
        self, name: str, seconds: float, seed: int, out: Path, work: Callable[..., None] = work
    ) -> None:
        self.name, self.seconds, self.seed, self.out = name, seconds, seed, out
        self._work = work
        self.faults: dict[str, Path] = {}
        self.tried = self.outcomes = 0

    def __call__(self) -> bool:
        """Whether nothing failed."""
        until, again = time.monotonic() + self.seconds, 0
        while time.monotonic() < until and len(self.faults) < MOST_FAULTS:
            self._process(until, f"{self.seed} {again}")
            again += 1
        print(
            f"{self.name}: {self.tried:,} inputs in {self.seconds:.0f} s, {self.outcomes} "
            f"outcomes, {len(self.faults) or 'no'} fault{'s' * (len(self.faults) > 1)}",
            flush=True,
        )
        return not self.faults and self.tried > 0

    def _process(self, until: float, seed: str) -> None:
        """Run one process until the end, or until it crashes or hangs."""
        self.out.mkdir(parents=True, exist_ok=True)
        current = self.out / f"{self.name}-now"
        here, there = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=self._work, args=(self.name, seed, until, current, there), daemon=True
        )
        process.start()
        self._last = time.monotonic(), 0.0
        there.close()
        before, stuck = self.tried, False
        try:
            while not stuck:
                if not here.poll(STUCK):
                    stuck = self._is_stuck(process.pid)
                    continue
                what, *rest = here.recv()
                self._last = time.monotonic(), cpu_seconds(process.pid)
                if what == "fault":
                    self._fault(*rest)
                    if len(self.faults) >= MOST_FAULTS:
                        break
                else:
                    self.tried = before + rest[0]
                    self.outcomes = max(self.outcomes, rest[1])
        except EOFError:
            pass
        if stuck or len(self.faults) >= MOST_FAULTS:
            process.kill()
        process.join()
        data = current.read_bytes() if current.exists() else b""
        if stuck:
            self._fault(data, f"hangs: {STUCK:.0f} s of processor time", "")
        elif process.exitcode and process.exitcode < 0 and len(self.faults) < MOST_FAULTS:
            words = f"crashes with {signal.Signals(-process.exitcode).name}"
            self._fault(data, words, "")
        elif process.exitcode and process.exitcode > 0:
            self._fault(b"", f"the fuzzer fails with {process.exitcode}", "")
        current.unlink(missing_ok=True)

    def _is_stuck(self, pid: int | None) -> bool:
        clock, cpu = self._last
        return cpu_seconds(pid) - cpu > STUCK or time.monotonic() - clock > 100 * STUCK

    def _fault(self, data: bytes, kind: str, trace: str) -> None:
        if kind in self.faults:
            return
        path = self.out / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        self.faults[kind] = path
        print(f"{self.name}: {kind}: {path}\n{trace}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--replay", type=Path)
    given = parser.parse_args()
    if given.replay is not None:
        print(checked(TARGETS[given.name], given.replay.read_bytes()))
        sys.exit()
    names = list(TARGETS) if given.name == "all" else [given.name]
    runs = [Run(name, given.seconds, given.seed, given.out) for name in names]
    with ThreadPoolExecutor(len(runs)) as pool:  # each has a process of its own
        good = list(pool.map(lambda run: run(), runs))
    sys.exit(0 if all(good) else 1)
