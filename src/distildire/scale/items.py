"""What a source of pictures holds: a folder, a manifest, or a text list of paths."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from distildire.io.finding import OnError, is_video
from distildire.io.tars import member_size, split_member
from distildire.io.text import (
    TextError,
    as_needed,
    lines_of,
    name_meant,
    rows_of,
    storable,
    words_of,
)


class SourceError(ValueError):
    """A source that can't be read; the message names it and the mend."""


@dataclass(frozen=True)
class Item:
    """One picture file as it was when it was listed."""

    path: str
    size: int | None
    """Bytes; None where the file can't be looked at."""
    mtime: float | None
    """Modification time in seconds since the epoch; inside a tar or Parquet, of the shard."""
    etag: str | None = None
    """What a store that tells no modification time says of the version."""
    read: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)
    """Gives the bytes, or raises what is wrong with them; None for a file at `path`."""
    at_once: bool = field(default=False, compare=False)
    """`read` works only until the next item is asked for."""
    shard: str | None = field(default=None, compare=False)
    """Of which this is a picture, where the shard is read from its beginning to its end."""

    @property
    def key(self) -> bytes:
        """16 bytes that stand for path, size and modification time (or ETag)."""
        version = "" if self.etag is None else f"\0{self.etag}"
        return digest(f"{storable(self.path)}\0{self.size}\0{self.mtime!r}{version}")

    def held(self) -> Item:
        """The same with its bytes in hand, where they have to be read at once."""
        if not self.at_once or self.read is None:
            return self
        try:
            data = self.read()
        except Exception as error:  # the row says so
            return replace(self, read=partial(failing, str(error)), at_once=False)
        return replace(self, read=lambda: data, at_once=False)


def failing(sentence: str) -> bytes:
    """Raise `sentence`: a `read` of what can't be read."""
    raise SourceError(sentence)


def digest(text: str) -> bytes:
    """16 bytes of BLAKE2."""
    return hashlib.blake2b(storable(text).encode(), digest_size=16).digest()


def listed(source: Path, on_error: OnError | None = None) -> Iterator[str]:
    """The paths and addresses that a manifest or a list names, in its order.

    A manifest (.parquet, .csv or .tsv) has a column `path`; any other file is read as one path per
    line. Their relative paths are relative to the file. A path that a list repeats is given
    each time. Both may be UTF-8, UTF-16 or Latin-1, and a .csv may separate by `,` `;` tab or
    `|`.

    Args:
        source: manifest or list.
        on_error: takes a sentence for each row that names no file; it is left out.

    Raises:
        SourceError: no such file, not readable, or a manifest without `path`.
    """
    if not source.is_file():
        raise SourceError(f"{source}: no such folder, manifest or list")
    root = source.parent
    return (entry if "://" in entry else str(root / entry) for entry in entries(source, on_error))


def entries(source: Path, on_error: OnError | None = None) -> Iterator[str]:
    """What a manifest or a list names, as it stands there.

    Raises:
        SourceError: not readable, or a manifest without `path`.
    """
    kind = source.suffix.lower()
    if is_video(source) or kind in {".jsonl", ".ndjson", ".json"}:
        raise SourceError(
            f"{source}: {kind} is no kind of source: give pictures, a table (.parquet, .csv, "
            ".tsv) with a column path, or a list of one path per line"
        )
    is_table = kind in {".parquet", *_TEXT_TABLES}
    try:
        for name in _column(source, on_error or _ignore) if is_table else lines_of(source):
            if "\0" in name:
                raise SourceError(f"{source}: not a list of paths: it is no text")
            yield name_meant(name, source.parent)
    except TextError as error:
        raise SourceError(str(error)) from None


_TEXT_TABLES = frozenset({".csv", ".tsv"})


def _ignore(_: str) -> None:
    pass


def item_of(path: str) -> Item:
    """Look at a file, without reading it."""
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib takes ten times as long, a million times
    except (OSError, ValueError):
        return _member_of(path)
    return Item(path, found.st_size, found.st_mtime)


def _member_of(path: str) -> Item:
    """A picture in a plain tar, with the tar's time; of anything else nothing is known."""
    member = split_member(path)
    try:
        size = None if member is None else member_size(*member)
        return Item(path, size, None if member is None else os.stat(member[0]).st_mtime)  # noqa: PTH116
    except (OSError, ValueError):
        return Item(path, None, None)


def _column(source: Path, on_error: OnError) -> Iterator[str]:
    if source.suffix.lower() in _TEXT_TABLES:
        for row in rows_of(source, ["path"], on_error):
            yield row["path"]
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(source) as file:
            names = as_needed(file.schema_arrow.names, {"path"})
            if (count := names.count("path")) != 1:
                raise SourceError(f"{source}: {'two columns' if count else 'no column'} path")
            field = file.schema_arrow.field(names.index("path"))
            for batch in file.iter_batches(columns=[field.name]):
                for path in batch[0].to_pylist():
                    number += 1
                    if not path and isinstance(path, str | bytes | None):
                        on_error(f"{source}: row {number}: no path")
                    elif isinstance(path, str | bytes):
                        yield os.fsdecode(path)
                    else:
                        raise SourceError(
                            f"{source}: the column {field.name} holds {field.type}, not text"
                        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{source}: not a readable Parquet file: {words_of(error)}") from None
