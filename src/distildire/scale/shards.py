"""Pictures inside files: WebDataset's tar shards, and Parquet with image bytes.

A shard is read once, front to back; what is wrong with it is a row of its own, and what stands
before that place is scored.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from distildire.io.finding import is_litter_path
from distildire.io.pictures import MAX_BYTES, PICTURE_SUFFIXES
from distildire.io.tars import BETWEEN, Names, named, target_of
from distildire.io.text import brief, words_of
from distildire.scale.items import Item, SourceError, failing
from distildire.scale.steady import StoreError

TAR_SUFFIXES = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz",
)  # fmt: skip

BATCH_ROWS = 64
"""Rows of a Parquet file in memory at a time."""


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
        item = self.item
        return Item(whole, size, item.mtime, item.etag, read, at_once=True, shard=item.path)

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


def is_picture_member(member: tarfile.TarInfo) -> bool:
    """Whether a member is a picture by its name, and no litter of a system."""
    suffix = PurePosixPath(member.name).suffix.lower()
    return (
        (member.isfile() or member.islnk() or member.issym())
        and suffix in PICTURE_SUFFIXES
        and not is_litter_path(member.name)
    )


def tar_items(shard: Shard) -> Iterator[Item]:
    """The pictures of a tar by their names' endings, in its order; then those that are links.

    A name that comes again ends in `#` and how often it came.
    """
    links: dict[str, list[str]] = {}
    try:
        for tar, name, member in _members(shard):
            if not is_picture_member(member):
                continue
            if member.islnk() or member.issym():
                links.setdefault(target_of(member), []).append(name)
            else:
                yield shard.holds(name, member.size, partial(_member, tar, member))
        # A stream can't go back to what a link stands for: it is read again.
        for tar, _, member in _members(shard) if links else ():
            if member.isfile():
                read = cache(partial(_member, tar, member))
                for name in links.pop(posixpath.normpath(member.name), ()):
                    yield shard.holds(name, member.size, read)
        for target, those in links.items():
            for name in those:
                sentence = f"a link to {brief(target)}, which is not in the tar"
                yield shard.holds(name, None, partial(failing, sentence))
    except FileNotFoundError:
        yield shard.failed("cannot be read: no such file")
    except StoreError as error:
        yield shard.failed(_broken_off(error))
    # Damaged headers, sums and streams raise many types.
    except Exception as error:
        yield shard.failed(
            f"the tar is cut short or damaged ({words_of(error)}): what comes after is lost"
        )


def _broken_off(error: StoreError) -> str:
    return f"cannot be read to its end ({words_of(error)}): run again for what comes after"


def _members(shard: Shard) -> Iterator[tuple[tarfile.TarFile, str, tarfile.TarInfo]]:
    with shard.open() as file, tarfile.open(fileobj=file, mode="r|*", bufsize=2**20) as tar:
        for name, member in named(each_member(tar)):
            yield tar, name, member


def each_member(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """What a tar holds, one at a time in memory."""
    for member in tar:
        tar.members = []  # type: ignore[attr-defined]  # else it keeps all it has seen
        yield member


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_BYTES:
        raise SourceError(f"too large: over the limit of {MAX_BYTES / 2**20:.0f} MiB")
    try:
        file = tar.extractfile(member)
        data = b"" if file is None else file.read()
    except StoreError as error:
        raise SourceError(f"cannot be read: {words_of(error)}") from None
    except Exception as error:
        raise SourceError(
            f"the tar is cut short or damaged in this picture ({words_of(error)})"
        ) from None
    if len(data) < member.size:
        raise SourceError("the tar is cut short in this picture")
    return data


def image_column(schema: Any) -> str | None:
    """The column of a Parquet schema that holds image bytes: `bytes`, `image`, or any struct of
    `bytes` and `path`, as the datasets library writes."""
    names = [name for name in ("bytes", "image") if name in schema.names]
    for field in (*map(schema.field, names), *schema):
        held = _fields(field.type)
        whole = field.name in names and _is_binary(field.type)
        if whole or ("bytes" in held and (field.name in names or "path" in held)):
            return str(field.name)
    return None


def _fields(kind: Any) -> set[str]:
    """Of a struct whose `bytes` are bytes."""
    import pyarrow as pa

    if not pa.types.is_struct(kind):
        return set()
    return {f.name for f in kind if f.name != "bytes" or _is_binary(f.type)}


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    kinds = {"binary", "large_binary", "fixed_size_binary", "binary_view"}
    return str(kind).partition("[")[0] in kinds


def parquet_items(shard: Shard, column: str) -> Iterator[Item]:
    """The pictures of a Parquet file, named by `path`, or by their row where there is none."""
    import pyarrow.parquet as pq

    names = Names()
    row = -1
    try:
        # A thread of Arrow's that holds a file of Python's beyond the read can abort the process.
        with shard.open() as file, pq.ParquetFile(file, pre_buffer=False) as table:
            wanted = [column, *(["path"] if "path" in table.schema_arrow.names else [])]
            for batch in table.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
                for values in batch.cast(_undecoded(batch.schema)).to_pylist():
                    row += 1
                    name, data = _named(values, column, row)
                    name = names.lone(name, row)
                    if data is None:
                        yield shard.holds(name, None, partial(failing, "the row holds no bytes"))
                    else:
                        yield shard.holds(name, len(data), partial(bytes, data))
    except FileNotFoundError:
        yield shard.failed("cannot be read: no such file")
    except StoreError as error:
        yield shard.failed(_broken_off(error))
    # Arrow raises its own, stores theirs.
    except Exception as error:
        yield shard.failed(
            f"the Parquet file is damaged ({words_of(error)}): what comes after is lost"
        )


def _undecoded(schema: Any) -> Any:
    """The schema with bytes for texts, which may be no UTF-8."""
    import pyarrow as pa

    def kind_of(kind: Any) -> Any:
        if pa.types.is_struct(kind):
            return pa.struct([field.with_type(kind_of(field.type)) for field in kind])
        return {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(kind, kind)

    return pa.schema([field.with_type(kind_of(field.type)) for field in schema])


def _named(values: dict[str, Any], column: str, row: int) -> tuple[str, bytes | None]:
    """(name in the shard, bytes) of a row."""
    held = values[column]
    inside = held if isinstance(held, dict) else {"bytes": held}
    name = values.get("path") or inside.get("path") or f"row {row}"
    return os.fsdecode(name) if isinstance(name, bytes) else str(name), inside["bytes"]
