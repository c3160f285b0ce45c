"""Pictures inside files: WebDataset's tar shards, and Parquet with image bytes.

A shard is read once, front to back; what is wrong with it is a row of its own, and what stands
before that place is scored.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from distildire.io.pictures import MAX_BYTES, PICTURE_SUFFIXES
from distildire.io.tars import BETWEEN
from distildire.io.text import words_of
from distildire.scale.items import Item, SourceError, failing

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

BATCH_ROWS = 64
"""Rows of a Parquet file in memory at a time."""

_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Shard:
    """A file of pictures, in a folder or a store."""

    item: Item
    """The file as it was when it was listed."""
    open: Callable[[], BinaryIO]

    @property
    def path(self) -> str:
        """As in the rows."""
        return self.item.path

    def holds(self, name: str, size: int | None, read: Callable[[], bytes]) -> Item:
        """One of its pictures."""
        whole = f"{self.path}{BETWEEN}{name}"
        return Item(whole, size, self.item.mtime, self.item.etag, read, at_once=True)

    def failed(self, sentence: str) -> Item:
        """The row of the shard itself."""
        item = self.item
        return Item(item.path, item.size, item.mtime, item.etag, partial(failing, sentence))


def open_file(path: str) -> BinaryIO:
    """A shard on a disk."""
    return Path(path).open("rb")


def is_tar(path: str) -> bool:
    """Whether the name ends like a tar's, compressed or not."""
    return path.lower().endswith(TAR_SUFFIXES)


def tar_items(shard: Shard) -> Iterator[Item]:
    """The pictures of a tar by their names' endings, in its order."""
    try:
        with shard.open() as file, tarfile.open(fileobj=file, mode="r|*", bufsize=2**20) as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps all it has seen
                suffix = PurePosixPath(member.name).suffix.lower()
                if member.isfile() and suffix in PICTURE_SUFFIXES:
                    read = partial(_member, tar, member)
                    yield shard.holds(member.name, member.size, read)
    except FileNotFoundError:
        yield shard.failed("cannot be read: no such file")
    except _BROKEN as error:
        yield shard.failed(
            f"the tar is cut short or damaged ({words_of(error)}): what comes after is lost"
        )


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_BYTES:
        raise SourceError(f"too large: over the limit of {MAX_BYTES / 2**20:.0f} MiB")
    try:
        file = tar.extractfile(member)
        data = b"" if file is None else file.read()
    except _BROKEN as error:
        raise SourceError(
            f"the tar is cut short or damaged in this picture ({words_of(error)})"
        ) from None
    if len(data) < member.size:
        raise SourceError("the tar is cut short in this picture")
    return data


def image_column(schema: Any) -> str | None:
    """The column of a Parquet schema that holds image bytes: `bytes`, or the struct `image`."""
    import pyarrow as pa

    def binary(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    for name in ("bytes", "image"):
        if name in schema.names:
            kind = schema.field(name).type
            struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            if binary(kind) or (struct and binary(kind.field("bytes").type)):
                return name
    return None


def parquet_items(shard: Shard, column: str) -> Iterator[Item]:
    """The pictures of a Parquet file, named by `path`, or by their row where there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names: set[int] = set()
    row = -1
    try:
        with shard.open() as file, pq.ParquetFile(file) as table:
            wanted = [column, *(["path"] if "path" in table.schema_arrow.names else [])]
            for batch in table.iter_batches(BATCH_ROWS, columns=wanted):
                for values in batch.to_pylist():
                    row += 1
                    name, data = _named(values, column, row, names)
                    if data is None:
                        yield shard.holds(name, None, partial(failing, "the row holds no bytes"))
                    else:
                        yield shard.holds(name, len(data), partial(bytes, data))
    except FileNotFoundError:
        yield shard.failed("cannot be read: no such file")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield shard.failed(
            f"the Parquet file is damaged ({words_of(error)}): what comes after is lost"
        )


def _named(
    values: dict[str, Any], column: str, row: int, names: set[int]
) -> tuple[str, bytes | None]:
    """(name in the shard, bytes) of a row; a name that comes again has its row's number."""
    held = values[column]
    inside = held if isinstance(held, dict) else {"bytes": held}
    name = values.get("path") or inside.get("path")
    if not name:
        return f"row {row}", inside["bytes"]
    if (known := hash(name)) in names:
        name = f"{name}#{row}"
    names.add(known)
    return str(name), inside["bytes"]
