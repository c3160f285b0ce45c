"""Going on with a file of JSON lines: what it holds, what is tried again, how rows are replaced."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distildire.io.hashing import sha256_of
from distildire.io.pictures import ImageError, refuse_unreadable
from distildire.io.results import as_line
from distildire.io.text import storable
from distildire.io.writing import whole_file, writing

SECONDS = 30.0
"""Replaced rows are written after so long, so that a kill costs little."""


class ResumeError(ValueError):
    """A file that can't be gone on with; the message names it and the mend."""


@dataclass
class Held:
    """The paths of a file's rows."""

    done: dict[str, str | None] = field(default_factory=dict)
    """Those that have a score, and the SHA-256 of what was scored."""
    failed: set[str] = field(default_factory=set)
    """Those whose row has an error: they are tried again."""


def was_replaced(path: str, held: Held) -> bool:
    """Whether a file is another than the one that was scored; one that is gone is not."""
    scored = held.done.get(storable(path))
    try:
        if scored is not None:
            refuse_unreadable(Path(path))  # else a pipe would be waited for
        return scored is not None and sha256_of(Path(path)) != scored
    except (OSError, ImageError):
        return False


def held_by(
    path: Path,
    made_with: dict[str, Any],
    differs: Callable[[dict[str, Any]], str | None] = lambda _: None,
) -> Held:
    """What a file of JSON lines holds; a last line that a kill has cut short is removed.

    Args:
        path: the file; nothing is held where there is none.
        made_with: values that each row must have, such as the model's hash.
        differs: says how else a row was made otherwise, as in "holds rows ...".

    Raises:
        ResumeError: a row of another making, or something that is no row.
        WriteError: the line cut short can't be removed.
    """
    held, twice, good = Held(), False, 0
    if not path.exists():
        return held
    with writing(path), path.open("rb+") as file:
        for number, line in enumerate(file, 1):
            row = _row(line)
            if row is None:
                if not _may_be_cut(line) or file.read(1):
                    raise ResumeError(
                        f"{path}: line {number} is no row of results: give another --out"
                    )
                break
            _check(path, row, made_with)
            if otherwise := differs(row):
                raise ResumeError(f"{path}: holds rows {otherwise}: give another --out")
            if not line.endswith(b"\n"):
                break
            name = row["path"]
            twice |= name in held.done or name in held.failed
            if row.get("error") is None:
                held.done[name] = row.get("sha256")
            else:
                held.failed.add(name)
            good += len(line)
        if good < path.stat().st_size:
            file.truncate(good)
    held.failed -= held.done.keys()
    if twice:
        _drop_repeats(path)
    return held


def _row(line: bytes) -> dict[str, Any] | None:
    row = _parsed(line)
    return row if isinstance(row, dict) and isinstance(row.get("path"), str) else None


def _may_be_cut(line: bytes) -> bool:
    """Whether a line that is no row may be the beginning of one; whole JSON is somebody else's."""
    return _parsed(line) is None and (line.startswith(b"{") or not line.strip(b"\0"))


def _parsed(line: bytes) -> Any:
    """The JSON of a line; None where it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _check(path: Path, row: dict[str, Any], made_with: dict[str, Any]) -> None:
    absent = [name for name in made_with if row.get(name) is None]
    if absent:
        raise ResumeError(
            f"{path}: its rows don't say with which {' and '.join(absent)} they were made: give "
            "another --out"
        )
    other = [f"{name} ({row[name]})" for name in made_with if row[name] != made_with[name]]
    if other:
        raise ResumeError(f"{path}: holds rows of another {', '.join(other)}: give another --out")


def replace_rows(
    path: Path, held: Held, rows: Iterable[dict[str, Any]], *, seconds: float = SECONDS
) -> None:
    """Put new rows of paths in the place of the old ones; `held` is brought up to date.

    The file is written anew beside the old one, every now and then and at the end: killed, it
    holds one row of each path.
    """
    new: dict[str, bytes] = {}
    since = time.monotonic()
    for row in rows:
        new[row["path"]] = as_line(row).encode()
        if row["error"] is None:
            held.failed.discard(row["path"])
            held.done[row["path"]] = row["sha256"]
        else:
            held.done.pop(row["path"], None)
            held.failed.add(row["path"])
        if time.monotonic() - since > seconds:
            began = time.monotonic()
            _rewrite(path, new)
            new.clear()
            since = time.monotonic()
            seconds = max(seconds, 10 * (since - began))
    if new:
        _rewrite(path, new)


def _drop_repeats(path: Path) -> None:
    """Keep of several rows of one path the last without an error, in the place of the first."""
    best: dict[str, bytes] = {}
    with path.open("rb") as file:
        for line in file:
            row = json.loads(line)
            if row.get("error") is None or row["path"] not in best:
                best[row["path"]] = line
    _rewrite(path, best)


def _rewrite(path: Path, better: dict[str, bytes]) -> None:
    seen: set[str] = set()
    with path.open("rb") as old, whole_file(path, durable=True) as new:
        for line in old:
            name = json.loads(line)["path"]
            if name not in seen:
                seen.add(name)
                new.write(better.get(name, line))
