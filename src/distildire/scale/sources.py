"""What `score` is given: folders, globs, manifests, lists, shards, here or in a store."""

from __future__ import annotations

import contextlib
import glob
import itertools
import tarfile
import tempfile
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from distildire.io.finding import OnError, is_litter_path
from distildire.io.pictures import PICTURE_SUFFIXES, open_picture
from distildire.io.tars import braces
from distildire.io.text import words_of
from distildire.scale.addresses import (
    address_of,
    is_address,
    is_web,
    item_at,
    local_form,
    open_store,
    patiently,
    pictures_below,
    without_query,
)
from distildire.scale.items import Item, SourceError, entries, item_of, list_items
from distildire.scale.shards import (
    Shard,
    image_column,
    is_picture_member,
    is_tar,
    open_file,
    parquet_items,
    tar_items,
)

MANIFESTS = (".parquet", ".csv", ".txt")
"""Endings of files that name pictures; a list may have any other too."""


def items_of(source: str | Path, on_error: OnError | None = None) -> Generator[Item]:
    """The pictures of a source in a stable order, one at a time.

    A source is what `list_items` takes, one picture, a tar, a Parquet file with image bytes,
    a pattern of these (`*`, `?`, `[..]`, and WebDataset's `{0000..0099}` and `{a,b}`), and
    the address of any of them.

    Raises:
        SourceError: no such source, or one that can't be read; of several, the others are
            given, and it has an item that fails.
    """
    names = expand(local_form(str(source)))
    first = next(names)
    rest = list(itertools.islice(names, 1))
    for name in itertools.chain([first], rest, names):
        try:
            yield from _of_one(name, on_error)
        except (SourceError, OSError) as error:
            sentence = words_of(error).removeprefix(f"{name}: ")
            if not rest:
                raise SourceError(f"{name}: {sentence}") from None
            yield Shard(Item(name, None, None), partial(open_file, name)).failed(sentence)


def refuse_nothing(source: str | Path) -> None:
    """Refuse a source that gives nothing at all, neither a picture nor what is wrong with one.

    Raises:
        SourceError: it holds no pictures, or see `items_of`.
    """
    failed: list[str] = []
    with contextlib.closing(items_of(source, failed.append)) as items:
        if next(items, None) is None and not failed:
            raise SourceError(f"{source}: holds no pictures")


def expand(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for, in order; a name that exists stands for itself.

    Raises:
        SourceError: a pattern that nothing matches.
    """
    if not is_address(pattern) and Path(pattern).exists():
        yield pattern
        return
    found = False
    try:
        names = braces(pattern)
    except ValueError as error:
        raise SourceError(str(error)) from None
    for name in names:
        if not glob.has_magic(without_query(name)):
            matches: Iterable[str] = [name]
        elif is_address(name):
            matches = _glob_in_store(name)
        else:
            matches = sorted(glob.iglob(name, recursive=True))  # noqa: PTH207 - absolute ones too
        for match in matches:
            found = True
            yield match
    if not found:
        raise SourceError(f"{pattern}: nothing matches this pattern")


def _glob_in_store(pattern: str) -> Iterator[str]:
    store, path = open_store(pattern)
    for match in sorted(patiently(lambda: store.glob(path))):
        if not is_litter_path(match):
            yield address_of(pattern, path, match)


def _of_one(name: str, on_error: OnError | None) -> Iterator[Item]:
    if is_address(name):
        return _of_address(name, on_error)
    if Path(name).is_dir():
        return list_items(name, on_error)
    if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES:
        return iter([item_of(name)])
    shard = Shard(item_of(name), partial(open_file, name))
    if is_tar(name):
        return tar_items(shard)
    if name.lower().endswith(".parquet") and Path(name).is_file():
        column = _image_column(shard)
        if column is not None:
            return parquet_items(shard, column)
    if _is_picture(name):
        return iter([item_of(name)])
    return _with_addresses(list_items(name, on_error))


def _is_picture(name: str) -> bool:
    """Whether a file whose name doesn't say so is a picture by its first bytes."""
    try:
        with Path(name).open("rb") as file, open_picture(file.read(2**16)):
            return True
    except Exception:  # Pillow raises many types
        return False


def _of_address(name: str, on_error: OnError | None) -> Iterator[Item]:
    store, path = open_store(name)
    plain = without_query(name)
    suffix = PurePosixPath(plain).suffix.lower()
    # Whether it is a folder, HTTP tells by a page of links: a file is fetched for that.
    is_file = is_web(name) and (suffix in {*PICTURE_SUFFIXES, *MANIFESTS} or is_tar(plain))
    if not is_file and patiently(lambda: store.isdir(path)):
        return pictures_below(name)
    item = item_at(name)
    if suffix in PICTURE_SUFFIXES:
        return iter([item])
    shard = Shard(item, lambda: patiently(lambda: store.open(path, "rb")))
    if is_tar(plain):
        return tar_items(shard)
    if not patiently(lambda: store.exists(path)):
        raise SourceError(f"{name}: no such folder, manifest or list")
    if suffix == ".parquet":
        column = _image_column(shard)
        if column is not None:
            return parquet_items(shard, column)
    return _listed_in_store(name, store, path, on_error)


def _listed_in_store(name: str, store: Any, path: str, on_error: OnError | None) -> Iterator[Item]:
    """A manifest or list in a store; its relative paths are relative to it."""
    plain = without_query(name)
    folder, _, last = plain.rpartition("/")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / last
        patiently(lambda: store.get_file(path, str(copy)))
        for entry in entries(copy, on_error):
            if is_address(entry):
                yield item_at(entry)
            else:
                yield item_of(entry) if entry.startswith("/") else item_at(f"{folder}/{entry}")


def _with_addresses(items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        yield item_at(item.path) if is_address(item.path) else item


def _image_column(shard: Shard) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with shard.open() as file:
            return image_column(pq.read_schema(file))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{shard.path}: not a readable Parquet file: {words_of(error)}") from None


def how_many(source: str | Path) -> int | None:
    """Items of a source without reading them; None where only reading it all would tell."""
    total = 0
    try:
        for name in expand(local_form(str(source))):
            number = _how_many_in(name)
            if number is None:
                return None
            total += number
    except Exception:  # the rows say what is wrong
        return None
    return total


def _how_many_in(name: str) -> int | None:
    if is_tar(without_query(name)):
        if is_address(name) or not name.lower().endswith(".tar"):
            return None
        with tarfile.open(name, "r:") as tar:
            return sum(map(is_picture_member, tar))
    if name.lower().endswith(".parquet") and not is_address(name):
        import pyarrow.parquet as pq

        return int(pq.read_metadata(name).num_rows)
    return sum(1 for _ in _of_one(name, None))
