"""Scores on disk: `part-*.parquet` files that appear whole or not at all.

A part is written under another name, synced and renamed, so that a run killed at any moment
leaves only whole parts. What is in them is done; the rest is scored by the next run.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distildire.io.writing import whole_file, write_json
from distildire.scale.items import Item, digest, storable
from distildire.verdict import plain_types

_ARROW = {str: pa.string(), float: pa.float64(), int: pa.int32()}

SCHEMA = pa.schema(
    [(name, _ARROW[plain]) for name, plain in plain_types().items()]
    + [("size", pa.int64()), ("mtime", pa.float64())]
)
"""The fields of a JSON line of `detect`, then the file's bytes and modification time."""

PART_ROWS = 2000
PART_SECONDS = 30.0
"""A part is written at so many rows or after so long: that much work a kill can cost."""


class PartsError(ValueError):
    """A folder of parts that can't be gone on with; the message is one sentence."""


class Done:
    """Which items the parts of a folder hold, in 16 bytes a row."""

    def __init__(self, folder: Path) -> None:
        self.errors = 0
        """Rows that have no score."""
        keys: list[NDArray[np.bytes_]] = [np.empty(0, "S16")]
        for part in part_files(folder):
            table = _read(part, ["path", "size", "mtime", "error"])
            self.errors += len(table) - table["error"].null_count
            columns = (table[name].to_pylist() for name in ("path", "size", "mtime"))
            items = itertools.starmap(Item, zip(*columns, strict=True))
            keys.append(np.array([item.key for item in items], "S16"))
        self._keys = np.sort(np.concatenate(keys))

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, Item):
            return False
        # As the array holds it: without the zero bytes at a key's end.
        key = np.array(item.key, "S16")[()]
        place = int(np.searchsorted(self._keys, key))
        return place < len(self._keys) and bool(self._keys[place] == key)


def part_files(folder: Path) -> list[Path]:
    """The parts in the order in which they were written."""
    return sorted(folder.glob("part-*.parquet"))


class PartWriter:
    """Gathers rows and writes them as parts."""

    def __init__(
        self, folder: Path, *, rows: int = PART_ROWS, seconds: float = PART_SECONDS
    ) -> None:
        self._folder, self._most, self._seconds = folder, rows, seconds
        parts = part_files(folder)
        self._number = int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 0
        self._rows: list[dict[str, Any]] = []
        self._since = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Take a row; it is safe once its part is full, or old enough."""
        self._rows.append(row | {"path": storable(row["path"])})
        if len(self._rows) >= self._most or time.monotonic() - self._since >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
            write_part(table, self._folder / f"part-{self._number:06d}.parquet")
            self._number += 1
            self._rows.clear()
        self._since = time.monotonic()


def write_part(table: pa.Table, path: Path) -> None:
    """Write a part so that it is there whole, or not there."""
    with whole_file(path, durable=True) as file:
        pq.write_table(table, file, compression="zstd")


def drop_stale(folder: Path) -> int:
    """Leave of several rows of one path only the last; gives the number of rows dropped.

    The others come from files that were changed and scored again, or listed twice.
    """
    parts = part_files(folder)
    keys: list[NDArray[np.bytes_]] = [np.empty(0, "S16")]
    for part in parts:
        paths = _read(part, ["path"])["path"].to_pylist()
        keys.append(np.array([digest(path) for path in paths], "S16"))
    stale = _repeated_later(np.concatenate(keys))
    start = 0
    for part, held in zip(parts, map(len, keys[1:]), strict=True):
        drop = stale[start : start + held]
        start += held
        if drop.all():
            part.unlink()
        elif drop.any():
            write_part(_read(part, None).filter(pa.array(~drop)), part)
    return int(stale.sum())


def _repeated_later(values: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    """Whether each value comes again further on."""
    order = np.argsort(values, kind="stable")
    inside = values[order]
    again = np.zeros(len(values), bool)
    again[order[:-1]] = inside[:-1] == inside[1:]
    return again


def _read(part: Path, columns: list[str] | None) -> pa.Table:
    try:
        return pq.read_table(part, columns=columns, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise PartsError(f"{part}: damaged: {error}; remove it to score its files again") from None


def open_folder(folder: Path, about: dict[str, Any]) -> None:
    """Make the folder, or check that its scores were made in the same way.

    Raises:
        PartsError: they are of another model or error budget, or it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise PartsError(f"{folder}: not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.tmp"):
        left.unlink()
    note = folder / "score.json"
    if note.is_file():
        before = json.loads(note.read_text())
        if before != about:
            changed = ", ".join(k for k in about if before.get(k) != about[k])
            raise PartsError(f"{folder}: holds scores with another {changed}: give another --out")
        return
    if part_files(folder):
        raise PartsError(f"{folder}: holds parts but no score.json: give another --out")
    write_json(note, about)
