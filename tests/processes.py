"""Processes of this machine, as Linux lists them."""

from __future__ import annotations

from pathlib import Path


def processes_of(session: int) -> list[int]:
    """All that belong to a session (what `start_new_session` began), and still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)
