"""Processes of this machine, as Linux lists them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def _running() -> Iterator[tuple[int, int, int]]:
    """Number, parent and session of each process that hasn't ended."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            yield int(stat.parent.name), int(fields[1]), int(fields[3])


def processes_of(session: int) -> list[int]:
    """All that belong to a session (what `start_new_session` began), and still run."""
    return sorted(process for process, _, of in _running() if of == session)


def children_of(process: int) -> list[int]:
    """Those that a process has started, and that still run."""
    return sorted(child for child, parent, _ in _running() if parent == process)
