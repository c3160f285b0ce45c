"""Scores on disk: `part-*.parquet` files that appear whole or not at all.

A part is written under another name, synced and renamed, so that a run killed at any moment
leaves only whole parts. What is in them is done; the rest is scored by the next run.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distildire.io.text import stored, words_of
from distildire.scale.folders import Folder, folder_of
from distildire.scale.items import Item, digest
from distildire.verdict import plain_types

log = logging.getLogger(__name__)

_ARROW = {str: pa.string(), float: pa.float64(), int: pa.int32()}

SCHEMA = pa.schema(
    [(name, _ARROW[plain]) for name, plain in plain_types().items()]
    + [("size", pa.int64()), ("mtime", pa.float64()), ("etag", pa.string())]
)
"""The fields of a JSON line of `detect`, then the file's bytes and modification time, and what
a store that tells no such time says of the version."""

PART_ROWS = 2000
PART_SECONDS = 30.0
"""A part is written at so many rows or after so long: that much work a kill can cost."""


NOTE, _OLD_NOTE = "_score.json", "score.json"
"""What made the scores; begins with an underscore, as readers of Parquet folders skip that."""


class PartsError(ValueError):
    """A folder of parts that can't be gone on with; the message is one sentence."""


_KEY = ("path", "size", "mtime", "etag")


def may_pass(row: Mapping[str, Any]) -> bool:
    """Whether an error may be gone next time although size and time of the file are the same."""
    error = row["error"] or ""
    if error.endswith("no such file") and all(row.get(name) is None for name in _KEY[1:]):
        return False  # it wasn't there when it was listed; once it is, it has a size and a time
    passing = ("cannot be read", "memory at hand", "needs a package")
    return any(words in error for words in passing)


class _Keys:
    """Keys of 16 bytes, sorted where they lie."""

    def __init__(self, joined: bytearray | NDArray[np.bytes_]) -> None:
        self.sorted = np.frombuffer(joined, "S16")
        self.sorted.sort()

    def __len__(self) -> int:
        return len(self.sorted)

    def place(self, key: bytes) -> int | None:
        """Where a key stands; None where it isn't there."""
        # As the array holds it: without the zero bytes at a key's end.
        held = np.array(key, "S16")[()]
        place = int(np.searchsorted(self.sorted, held))
        return place if place < len(self.sorted) and self.sorted[place] == held else None

    def repeated(self) -> _Keys:
        """Those that are there several times, once or more."""
        return _Keys(self.sorted[1:][self.sorted[1:] == self.sorted[:-1]])


class DoneItems:
    """Which items the parts of a folder hold, in 16 to 18 bytes per row, 16 more for an error.

    A row whose error lies in the machine and not in the file doesn't count: it is tried again.
    """

    def __init__(self, folder: str | Path | Folder) -> None:
        folder = folder_of(folder)
        joined, wrong = bytearray(), bytearray()
        for part in part_files(folder):
            for row in _read(folder, part, [*_KEY, "error"]).to_pylist():
                if not may_pass(row):
                    key = Item(*map(row.get, _KEY)).key
                    joined += key
                    wrong += key if row["error"] is not None else b""
        self._keys, self._wrong = _Keys(joined), _Keys(wrong)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, item: object) -> bool:
        return isinstance(item, Item) and self._keys.place(item.key) is not None

    def has_error(self, item: Item) -> bool:
        """Whether the row of an item has an error."""
        return len(self._wrong) > 0 and self._wrong.place(item.key) is not None


def part_files(folder: Folder) -> list[str]:
    """Names of the parts in the order in which they were written."""
    names = (name for name in folder.names() if re.fullmatch(r"part-\d+\.parquet", name))
    return sorted(names, key=_number)


def _number(part: str) -> int:
    return int(part[len("part-") : -len(".parquet")])


class PartWriter:
    """Gathers rows and writes them as parts."""

    def __init__(
        self,
        folder: str | Path | Folder,
        *,
        rows: int = PART_ROWS,
        seconds: float = PART_SECONDS,
    ) -> None:
        self._folder, self._most, self._seconds = folder_of(folder), rows, seconds
        parts = part_files(self._folder)
        self._number = _number(parts[-1]) + 1 if parts else 0
        self._rows: list[dict[str, Any]] = []
        self._since = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Take a row; it is safe once its part is full, or old enough."""
        self._rows.append(stored(row))
        if len(self._rows) >= self._most or time.monotonic() - self._since >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
            write_part(table, self._folder, f"part-{self._number:06d}.parquet")
            self._number += 1
            self._rows.clear()
        self._since = time.monotonic()


def write_part(table: pa.Table, folder: str | Path | Folder, name: str) -> None:
    """Write a part so that it is there whole, or not there."""
    folder_of(folder).write(name, lambda file: pq.write_table(table, file, compression="zstd"))


def drop_stale(folder: Folder, mended: Collection[str] = (), asked: bytearray | None = None) -> int:
    """Leave of several rows of one path only the last; gives how many have an error.

    The others come from files that were changed and scored again, or listed twice. An error that
    says nothing of the file, as it couldn't be reached, is counted, and goes where the path has a
    score; so do, uncounted, the errors of `mended` paths. Only the paths whose digests are `asked`,
    one after the other, are counted; all without them. Takes up to 19 bytes of memory per row, and
    17 per row of several.
    """
    counted = None if asked is None else _Keys(asked)

    def counts(path: str) -> bool:
        return counted is None or counted.place(digest(path)) is not None

    parts = part_files(folder)
    joined, wrong, drops_errors = bytearray(), 0, False
    for part in parts:
        for path, is_wrong, _ in _paths(folder, part):
            joined += digest(path)
            wrong += is_wrong and counts(path)
            drops_errors |= is_wrong and path in mended
    repeated = _Keys(joined).repeated()
    del joined
    if not len(repeated) and not drops_errors:
        return wrong
    marks, left, unreached = bytearray(len(repeated)), 0, 0
    for part in parts if len(repeated) else ():
        for path, is_wrong, _ in _paths(folder, part):
            if not is_wrong and (place := repeated.place(digest(path))) is not None:
                marks[place] |= _SCORED
    for part in reversed(parts):
        stays = []
        for path, is_wrong, is_unreached in reversed(_paths(folder, part)):
            place = repeated.place(digest(path))
            mark = 0 if place is None else marks[place]
            is_stale = bool(mark & _SEEN) or (is_wrong and path in mended)
            yields = not is_stale and is_unreached and bool(mark & _SCORED)
            if place is not None and not yields:
                marks[place] |= _SEEN
            stays.append(not is_stale and not yields)
            left += is_wrong and not is_stale and counts(path)
            unreached += yields
        if not any(stays):
            folder.remove(part)
        elif not all(stays):
            table = _read(folder, part, None)
            write_part(table.filter(pa.array(stays[::-1])), folder, part)
    if unreached:
        log.warning("%s: %d that could not be read keep the score they had", folder, unreached)
    return left


_SEEN, _SCORED = 1, 2
"""Of a path: one of its rows stays already; it has a score."""


def _paths(folder: Folder, part: str) -> list[tuple[str, bool, bool]]:
    """(path, whether it has an error, whether that says nothing of the file) of each row."""
    rows = _read(folder, part, [*_KEY, "error"]).to_pylist()
    return [(row["path"], row["error"] is not None, _is_unreached(row)) for row in rows]


def _is_unreached(row: Mapping[str, Any]) -> bool:
    unknown = all(row.get(name) is None for name in _KEY[1:])
    return row["error"] is not None and (unknown or may_pass(row))


def _schema(folder: Folder, part: str) -> pa.Schema:
    try:
        with folder.open(part) as file:
            return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(folder, part, error) from None


def _damaged(folder: Folder, part: str, error: Exception) -> PartsError:
    words = f"{folder}/{part}: damaged: {words_of(error)}"
    return PartsError(f"{words}; remove it to score its files again")


def _read(folder: Folder, part: str, columns: Sequence[str] | None) -> pa.Table:
    try:
        # A thread of Arrow's may hold a file of Python's beyond the read; where it lets go of it
        # while the process ends, the process aborts.
        with folder.open(part) as file, pq.ParquetFile(file, pre_buffer=False) as table:
            if columns is not None:
                columns = [name for name in columns if name in table.schema_arrow.names]
            return table.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(folder, part, error) from None


def scored_before(folder: Folder) -> Iterator[dict[str, Any]]:
    """The rows of the parts that have a hash, but for errors that may pass."""
    for part in part_files(folder):
        for row in _read(folder, part, None).to_pylist():
            if row["sha256"] is not None and not may_pass(row):
                yield row


@contextmanager
def open_folder(folder: Folder, about: dict[str, Any]) -> Iterator[None]:
    """Make the folder, or check that its scores were made in the same way; be its one writer.

    Raises:
        PartsError: they are of another model, calibration, error budget or device, or it is no
            folder.
        BusyError: another run writes there.
    """
    try:
        folder.prepare()
    except (NotADirectoryError, FileExistsError):
        raise PartsError(f"{folder}: not a folder") from None
    with folder.only_writer():
        _check(folder, about)
        yield


def _check(folder: Folder, about: dict[str, Any]) -> None:
    held = next((name for name in (NOTE, _OLD_NOTE) if name in folder.names()), None)
    if held is not None:
        try:
            with folder.open(held) as file:
                before = json.loads(file.read())
        except (ValueError, RecursionError):
            before = None
        except OSError as error:
            raise PartsError(f"{folder}/{held}: cannot be read: {words_of(error)}") from None
        if not isinstance(before, dict) or "sha256" not in before:
            raise PartsError(f"{folder}/{held}: damaged: give another --out")
        # Version and name of the model don't change a score; older notes name no device, and no
        # calibration.
        same = {
            "sha256": "model", "calibration": "calibration", "fpr": "fpr", "device": "device",
        }  # fmt: skip
        changed = [k for k in same if k in about and before.get(k, about[k]) != about[k]]
        if changed:
            words = ", ".join(same[k] for k in changed)
            values = ", ".join(
                f"{same[k]} {str(before[k])[:12]} there, {str(about[k])[:12]} asked"
                for k in changed
            )
            raise PartsError(
                f"{folder}: holds scores with another {words}: give another --out ({values})"
            )
        _bring_up_to_date(folder, about)
        if before != about:
            _write_note(folder, about)
        if held == _OLD_NOTE:
            folder.remove(_OLD_NOTE)
        return
    if part_files(folder):
        raise PartsError(f"{folder}: holds parts but no {NOTE}: give another --out")
    _write_note(folder, about)


def _bring_up_to_date(folder: Folder, about: dict[str, Any]) -> None:
    """Give parts of an earlier version the columns that they lack."""
    known = {"model_sha256": about["sha256"], "fpr": about["fpr"]}
    for part in part_files(folder):
        schema = _schema(folder, part)
        if schema.equals(SCHEMA):
            continue
        table = _read(folder, part, None)
        try:
            if "path" not in schema.names:
                raise pa.ArrowInvalid("it has no column path")
            columns = [
                table[field.name].cast(field.type)
                if field.name in schema.names
                else pa.array([known.get(field.name)] * len(table), field.type)
                for field in SCHEMA
            ]
        except pa.ArrowException as error:
            raise _damaged(folder, part, error) from None
        write_part(pa.table(columns, schema=SCHEMA), folder, part)


def _write_note(folder: Folder, about: dict[str, Any]) -> None:
    text = json.dumps(about, indent=1) + "\n"
    folder.write(NOTE, lambda file: file.write(text.encode()))
