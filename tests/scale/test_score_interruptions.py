"""`score` killed at random moments, whichever of its processes it hits: no row lost, none twice."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from processes import processes_of
from scale.rows import Row, assert_same_rows, without_order

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]

PICTURES = 400

SILENT: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

SLOWED = """
import sys, time
from distildire.detector import Detector
from distildire.scale import score
# As slow as a large model, so that kills come in the middle.
load = Detector.load
Detector.load = lambda *given, **named: (time.sleep(0.02), load(*given, **named))[1]
score.score(sys.argv[1], score.Path(sys.argv[2]), model=sys.argv[3], engine=sys.argv[4],
            isolate=sys.argv[5] == "isolate", part_rows=11)
"""


@pytest.fixture
def many(tmp_path: Path, busy: np.ndarray) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(PICTURES):
        Image.fromarray(np.roll(busy, n, axis=1)[:64, :64]).save(folder / f"{n:03d}.png")
    (folder / "text.jpg").write_text("hello")
    return folder


def kill(process: int) -> bool:
    """Whether it was still there."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def killed_at_random(
    command: list[str], chance: random.Random, longest: float, out: Path
) -> tuple[bool, bool]:
    """Kill one process of the command's, any one. (Whether it hit one, whether the run ended.)"""
    began = len(list(out.glob("part-*.parquet")))
    with subprocess.Popen(command, start_new_session=True, **SILENT) as process:
        # As many kills come before the first row as after some rows.
        parts, until = began + chance.choice((0, 1, 4, 12)), time.monotonic() + longest
        while len(list(out.glob("part-*.parquet"))) < parts and time.monotonic() < until:
            if process.poll() is not None:
                return False, True
            time.sleep(0.005)
        time.sleep(chance.uniform(0, longest / 10))
        running = processes_of(process.pid)
        # Every other kill is the driver's: of Ray's processes it is one of many.
        hit = chance.choice([process.pid, chance.choice(running)]) if running else 0
        hit = hit if hit and kill(hit) else 0
        if hit != process.pid:  # what is left may finish, or notice
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(90)
        ended = process.poll() == 0
        for left in processes_of(process.pid):
            kill(left)
    return bool(hit), ended


def kill_and_resume(
    engine: str, isolate: bool, kills: int, longest: float, many: Path, bundle: Path, tmp: Path
) -> list[int]:
    """Rows after each kill; the last run, and whatever ended by itself, have all rows."""
    chance, out = random.Random(kills), tmp / "out"
    how = "isolate" if isolate else "plain"
    command = [sys.executable, "-c", SLOWED, *map(str, (many, out, bundle)), engine, how]
    before: list[Row] = []
    moments: list[int] = []
    while len(moments) < kills:
        if len(before) == PICTURES + 1:  # all is done: once more from the beginning
            out = out.with_name(f"out{len(moments)}")
            command[4], before = str(out), []
        hit, ended = killed_at_random(command, chance, longest, out)
        after = without_order(out)
        assert all(row in after for row in before if row["error"] is None), "a row is lost"
        assert len(after) == PICTURES + 1 or not ended
        before = after
        if hit:
            moments.append(len(after))
    subprocess.run(command, check=True, timeout=300, **SILENT)
    calm = tmp / "calm"
    subprocess.run([*command[:4], str(calm), str(bundle), "local", "plain"], check=True)
    assert_same_rows(out, calm)
    assert len(without_order(out)) == PICTURES + 1
    return moments


Killer = Callable[[str, bool, int, float], list[int]]


@pytest.fixture
def killer(many: Path, bundle: Path, tmp_path: Path) -> Killer:
    return lambda engine, isolate, kills, longest: kill_and_resume(
        engine, isolate, kills, longest, many, bundle, tmp_path
    )


@pytest.mark.parametrize("isolate", [False, True])
def test_killed_on_this_machine(killer: Killer, isolate: bool) -> None:
    print(f"rows after each kill: {killer('local', isolate, 20, 6.0)}")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_killed_on_ray(killer: Killer) -> None:
    print(f"rows after each kill: {killer('ray', False, 20, 25.0)}")
