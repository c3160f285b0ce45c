"""What `score` is given: folders, globs, manifests, lists, shards, here or in a store."""

from __future__ import annotations

import itertools
import logging
import tarfile
import tempfile
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from distildire.io.addresses import is_address, local_form
from distildire.io.finding import OnError, find_files, is_video
from distildire.io.pictures import PICTURE_SUFFIXES, open_picture
from distildire.io.tars import BETWEEN, SUFFIX
from distildire.io.text import as_needed, brief, words_of
from distildire.scale.addresses import (
    has_links,
    info_at,
    is_web,
    item_at,
    item_from,
    open_store,
    patiently,
    pictures_below,
    without_query,
)
from distildire.scale.items import Item, SourceError, entries, failing, item_of, listed
from distildire.scale.left_out import LeftOut
from distildire.scale.patterns import expand
from distildire.scale.shards import (
    Shard,
    each_member,
    image_column,
    is_picture_member,
    is_tar,
    open_file,
    parquet_items,
    tar_items,
)
from distildire.scale.steady import StoreError, open_object

log = logging.getLogger(__name__)

MANIFESTS = (".parquet", ".csv", ".txt")
"""Endings of files that name pictures; a list may have any other too."""


def items_of(source: str | Path, on_error: OnError | None = None) -> Generator[Item]:
    """The pictures of a source in a stable order, one at a time.

    A source is a folder, which is walked recursively, videos left out; a manifest or a text list
    (see `listed`), whose lines may name shards and pictures in them; one picture, a tar, a
    Parquet file with image bytes; a pattern of these (`*`, `?`, `[..]`, and WebDataset's
    `{0000..0099}` and `{a,b}`); and the address of any of them.

    Args:
        source: as above.
        on_error: takes a sentence for each folder that can't be listed and each row that
            names no file; they are left out.

    Raises:
        SourceError: no such source, or one that can't be read; of several, the others are
            given, and it has an item that fails.
    """
    if not (name := local_form(str(source))):
        raise SourceError("the source is empty: give a folder, a list or shards")
    names = expand(name)
    first = next(names)
    rest = list(itertools.islice(names, 1))
    for name in itertools.chain([first], rest, names):
        try:
            yield from _of_one(name, on_error)
        except (SourceError, OSError) as error:
            sentence = words_of(error).removeprefix(f"{name}: ")
            if isinstance(error, OSError):
                sentence = f"cannot be read: {sentence}"
            if not rest:
                raise SourceError(f"{name}: {sentence}") from None
            yield Shard(Item(name, None, None), partial(open_file, name)).failed(sentence)


def _of_one(name: str, on_error: OnError | None) -> Iterator[Item]:
    if is_address(name):
        return _of_address(name, on_error)
    if Path(name).is_dir():
        return _of_folder(name, on_error)
    if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES:
        return iter([item_of(name)])
    found = _of_shard(name) if is_tar(name) or Path(name).is_file() else None
    if found is not None:
        return found
    if _is_picture(name):
        return iter([item_of(name)])
    return _of_entries(listed(Path(name), on_error))


def _of_folder(folder: str, on_error: OnError | None) -> Iterator[Item]:
    """The pictures below a folder; the shards there are told of.

    Raises:
        SourceError: shards alone.
    """
    left = LeftOut(folder, _holds_pictures)
    if is_address(folder):
        items = pictures_below(folder, on_error, left.see)
    else:
        paths = find_files([folder], on_error, left.see)
        items = (item_of(path) for path in paths if not is_video(path))
    empty = True
    for item in items:
        empty = False
        yield item
    if left.sentence is None:
        return
    if empty:
        raise SourceError(f"{folder}: holds no pictures, but {left.sentence}")
    if on_error is not None:  # else it is counted alone
        log.warning("%s: its pictures are scored; left out: %s", folder, left.sentence)


def _holds_pictures(path: str) -> bool:
    try:
        return _of_shard(path) is not None
    except (SourceError, OSError):
        return False


def _of_shard(name: str) -> Iterator[Item] | None:
    """The pictures of a tar or of Parquet with image bytes; None for any other file.

    Raises:
        SourceError: Parquet that can't be read, or has neither image bytes nor paths.
    """
    plain = without_query(name).lower()
    if not is_tar(plain) and not plain.endswith(".parquet"):
        return None
    if is_address(name):
        shard = Shard(item_at(name), partial(open_object, name))
    else:
        shard = Shard(item_of(name), partial(open_file, name))
    if is_tar(plain):
        return tar_items(shard)
    column = _image_column(shard)
    return None if column is None else parquet_items(shard, column)


def _of_entries(names: Iterable[str]) -> Iterator[Item]:
    """What the lines of a list stand for: pictures, the pictures of shards, or some of these."""
    for shard, lines in itertools.groupby(names, _read_for):
        if shard is not None:
            yield from _some_of(shard, list(lines))
        else:
            yield from itertools.chain.from_iterable(map(_of_entry, lines))


def _read_for(name: str) -> str | None:
    """The shard that is read from its beginning for what a line names in it."""
    shard, between, member = name.partition(BETWEEN)
    if not between or is_address(member):  # a chain of fsspec's
        return None
    plain = without_query(shard).lower()
    plainly_here = plain.endswith(SUFFIX) and not is_address(shard)
    in_turn = plain.endswith(".parquet") or (is_tar(plain) and not plainly_here)
    return shard if in_turn else None


def _some_of(shard: str, names: list[str]) -> Iterator[Item]:
    """Pictures of a shard in its order, and a row of what is wrong for those not there."""
    wanted, sentence = set(names), "the shard has no such picture"
    try:
        found = _of_shard(shard)
    except (SourceError, OSError) as error:
        found, sentence = None, words_of(error).removeprefix(f"{shard}: ")
    for item in found or ():
        if item.path in wanted:
            wanted.remove(item.path)
            yield item
        elif item.path == shard:  # what is wrong with it
            yield item
            return
    for name in names:
        if name in wanted:
            yield Item(name, None, None, read=partial(failing, sentence))


def _of_entry(name: str) -> Iterator[Item]:
    try:
        found = _of_shard(name)
        if found is None and without_query(name).lower().endswith(".parquet"):
            raise SourceError("holds no image bytes, and a list can't name another list")
    except (SourceError, OSError) as error:
        sentence = words_of(error).removeprefix(f"{name}: ")
        yield Item(name, None, None, read=partial(failing, sentence))
        return
    if found is None:
        yield item_at(name) if is_address(name) else item_of(name)
    else:
        yield from found


def _is_picture(name: str) -> bool:
    """Whether a file whose name doesn't say so is a picture by its first bytes."""
    try:
        with Path(name).open("rb") as file, open_picture(file.read(2**16)):
            return True
    except Exception:  # Pillow raises many types
        return False


def _of_address(name: str, on_error: OnError | None) -> Iterator[Item]:
    plain = without_query(name)
    suffix = PurePosixPath(plain).suffix.lower()
    if is_web(name) and suffix in PICTURE_SUFFIXES:
        return iter([item_at(name)])
    info = info_at(name)
    # Whether it is a folder, HTTP tells by a page of links: a file is fetched for that.
    is_file = not is_web(name) or suffix in MANIFESTS or is_tar(plain)
    if info is not None and (
        info["type"] == "directory" if is_file else has_links(name)
    ):  # fmt: skip
        return _of_folder(name, on_error)
    if suffix in PICTURE_SUFFIXES:
        return iter([item_from(name, info)])
    if info is None and not is_tar(plain):
        raise SourceError(f"{name}: no such folder, manifest or list")
    found = _of_shard(name)
    if found is not None:
        return found
    return _of_entries(_listed_in_store(name, on_error))


def _listed_in_store(name: str, on_error: OnError | None) -> Iterator[str]:
    """What a manifest or list in a store names; its relative paths are relative to it."""
    store, path = open_store(name)
    folder, _, last = without_query(name).rpartition("/")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / last
        patiently(lambda: store.get_file(path, str(copy)))
        for entry in entries(copy, on_error):
            whole = is_address(entry) or entry.startswith("/")
            yield entry if whole else f"{folder}/{entry}"


def _image_column(shard: Shard) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with shard.open() as file:
            schema = pq.read_schema(file)
    except FileNotFoundError:
        raise SourceError(f"{shard.path}: cannot be read: no such file") from None
    except StoreError as error:
        raise SourceError(f"{shard.path}: cannot be read: {words_of(error)}") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{shard.path}: not a readable Parquet file: {words_of(error)}") from None
    column = image_column(schema)
    if column is None and "path" not in as_needed(schema.names, {"path"}):
        held = brief(", ".join(f"{field.name} ({field.type})" for field in schema))
        raise SourceError(
            f"{shard.path}: no column path, as a manifest has, and no image bytes: they are "
            f"looked for in bytes, in image, and in a struct of bytes and path; it has {held}"
        )
    return column


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
    plain = without_query(name).lower()
    if is_tar(plain):
        if is_address(name) or not plain.endswith(".tar"):
            return None
        with tarfile.open(name, "r:") as tar:
            return sum(map(is_picture_member, each_member(tar)))
    if plain.endswith(".parquet"):
        import pyarrow.parquet as pq

        with open_object(name) if is_address(name) else open_file(name) as file:
            return int(pq.read_metadata(file).num_rows)
    is_picture_name = PurePosixPath(plain).suffix in PICTURE_SUFFIXES
    if is_picture_name and (is_address(name) or not Path(name).is_dir()):
        return 1
    if plain.endswith((".csv", ".tsv", ".txt")):
        return _how_many_listed(
            _listed_in_store(name, None) if is_address(name) else listed(Path(name))
        )
    return sum(1 for _ in _of_one(name, None))


def _how_many_listed(names: Iterable[str]) -> int | None:
    """Of the lines of a list, each a picture or a shard."""
    total = 0
    for name in names:
        plain = without_query(name).lower()
        number = _how_many_in(name) if is_tar(plain) or plain.endswith(".parquet") else 1
        if number is None:
            return None
        total += number
    return total
