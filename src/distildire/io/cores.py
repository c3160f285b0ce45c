"""How many cores this process may use, and work divided among them."""

from __future__ import annotations

import itertools
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4
"""Items per core that are begun before the first of them is taken."""

AHEAD_BYTES = 256 * 2**20
"""Bytes that these may hold, before no other is begun."""


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: by its affinity and by its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _quota(cgroup: Path) -> float | None:
    """Cores by `cpu.max` (cgroup v2) or `cpu.cfs_quota_us` (v1); None without a limit."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit
        return None


def over_cores(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    cores: int,
    *,
    ahead: int | None = None,
    size: Callable[[Item], int] | None = None,
) -> Iterator[Result]:
    """`work` of each item, in their order: one thread per core, in bounded memory.

    Up to `ahead` items are begun before the first of them is taken, `AHEAD` a core by default, and
    none while those begun have `AHEAD_BYTES` by their `size`.
    """
    most = AHEAD * cores if ahead is None else ahead
    source = iter(items)
    waiting: deque[tuple[int, Future[Result]]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        while True:
            while len(waiting) < most and sum(held for held, _ in waiting) < AHEAD_BYTES:
                if not (begun := list(itertools.islice(source, 1))):
                    break
                held = 0 if size is None else size(begun[0])
                waiting.append((held, pool.submit(work, begun[0])))
            if not waiting:
                return
            yield waiting.popleft()[1].result()
