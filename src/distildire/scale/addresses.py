"""Object stores and other places that fsspec opens: `s3://`, `gs://`, `memory://`, ...

Credentials are those of the store's own package. `file://` is the local file.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

from distildire.io.addresses import is_address
from distildire.io.finding import OnError, is_litter_path
from distildire.io.pictures import MAX_BYTES, PICTURE_SUFFIXES
from distildire.io.text import words_of
from distildire.scale.items import Item, SourceError, failing

T = TypeVar("T")

TRIES = 4
"""A store that is busy (503) or drops a connection is asked so often, ever later."""

FIRST_WAIT = 0.2
"""Seconds before the second try; they double."""

_WRONG = (TypeError, ValueError, NotImplementedError)
"""What a store raises of a wrong question, to which it has but one answer."""

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def is_web(text: str) -> bool:
    """Whether it is an address of HTTP, in which `?` begins a query."""
    return text.lower().startswith(("http://", "https://"))


def without_query(address: str) -> str:
    """An address up to its query: what its name ends in."""
    return re.split(r"[?#]", address, maxsplit=1)[0] if is_web(address) else address


def open_store(address: str) -> tuple[Any, str]:
    """(file system, path in it).

    Raises:
        SourceError: fsspec or the store's package is missing, or nobody knows the protocol.
    """
    try:
        import fsspec
    except ImportError as error:
        raise ImportError("fsspec is missing: pip install fsspec", name="fsspec") from error
    try:
        store, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise SourceError(f"{address}: {error}: pip install it beside distildire") from None
    except ValueError as error:
        raise SourceError(f"{address}: {error}") from None
    return store, path


def patiently(call: Callable[[], T]) -> T:
    """What `call` gives, asked again where the store fails for a moment.

    Raises:
        OSError: the store fails for good, whatever its package raised.
    """
    for wait in itertools.count():
        try:
            return call()
        except Exception as error:
            meant = _meant(error)
            if isinstance(meant, _FINAL):
                raise meant from None
            if wait == TRIES - 1 or isinstance(meant, _WRONG):
                # Those of aiohttp and gcsfs are no OSErrors.
                raise meant if isinstance(meant, OSError) else OSError(words_of(meant)) from None
            time.sleep(FIRST_WAIT * 2**wait)
    raise AssertionError("unreachable")


def _meant(error: Exception) -> Exception:
    """fsspec's store of HTTP says of whatever fails that there is no such file."""
    cause = error.__cause__
    web = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and web:
        error = cause
    status = getattr(error, "status", None)
    if status in {401, 403}:
        return PermissionError(words_of(error))
    return FileNotFoundError(words_of(error)) if status in {400, 404, 410} else error


def read_address(address: str) -> bytes:
    """The bytes of one object."""
    store, path = open_store(address)
    try:
        data: bytes = patiently(lambda: store.cat_file(path))
    except FileNotFoundError:
        raise SourceError("cannot be read: no such file") from None
    except OSError as error:
        raise SourceError(f"cannot be read: {words_of(error)}") from None
    return data


def info_at(address: str) -> dict[str, Any] | None:
    """What a store tells of an object or a folder; None where nothing is there.

    Raises:
        OSError: the store fails for good.
        SourceError: see `open_store`.
    """
    store, path = open_store(address)
    try:
        info: dict[str, Any] = patiently(lambda: store.info(path))
    except FileNotFoundError:
        return None
    return info


def has_links(address: str) -> bool:
    """Whether an address of HTTP is a page of links, as web servers show a folder.

    Raises:
        OSError: the server fails for good.
    """
    store, path = open_store(address)
    try:
        return bool(patiently(lambda: store.ls(path, detail=False)))
    except FileNotFoundError:
        return False


def item_at(address: str) -> Item:
    """Look at an object, without reading it."""
    try:
        return item_from(address, info_at(address))
    except (OSError, SourceError) as error:
        return Item(
            address, None, None, read=partial(failing, f"cannot be read: {words_of(error)}")
        )


def item_from(address: str, info: dict[str, Any] | None) -> Item:
    """An item from what a store tells of an object; None: nothing is there."""
    if info is None:
        return Item(address, None, None, read=partial(failing, "cannot be read: no such file"))
    size, when = info.get("size"), modified(info)
    etag = info.get("ETag") or info.get("etag") or info.get("Last-Modified")
    read = partial(read_address, address)
    if size is not None and size > MAX_BYTES:
        read = partial(failing, f"too large: over the limit of {MAX_BYTES / 2**20:.0f} MiB")
    return Item(address, size, when, str(etag) if etag and when is None else None, read)


def modified(info: dict[str, Any]) -> float | None:
    """Modification time in seconds since the epoch, as the stores spell it."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "modified", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return None


def pictures_below(
    address: str,
    on_error: OnError | None = None,
    on_other: Callable[[str], None] | None = None,
) -> Iterator[Item]:
    """The pictures of a folder in a store, in the order of their names.

    Folders are listed as they are come to, each once: what is in memory is the listing of one
    folder, and of those above it what is still to come.

    Args:
        address: of the folder.
        on_error: takes a sentence for each folder below that can't be listed.
        on_other: takes the addresses of files that are no pictures.
    """
    store, path = open_store(address)
    for info in _files_below(store, path, on_error):
        name = info["name"]
        if is_litter_path(name.removeprefix(path)):
            continue
        whole = address_of(address, path, name)
        if PurePosixPath(without_query(name)).suffix.lower() in PICTURE_SUFFIXES:
            item = item_from(whole, info)
            # A web server's list of links tells nothing of them: each is asked for.
            told = item.size is not None or item.mtime is not None or item.etag is not None
            yield item if told else item_at(item.path)
        elif on_other is not None:
            on_other(whole)


def _files_below(store: Any, folder: str, on_error: OnError | None) -> Iterator[dict[str, Any]]:
    """What a store tells of its files, in the order of their names."""
    found = sorted(
        patiently(lambda: store.ls(folder, detail=True)), key=_place_of, reverse=True
    )  # fmt: skip
    store.invalidate_cache(folder)  # else it keeps every listing
    while found:
        info = found.pop()
        if info["type"] != "directory":
            yield info
        elif info["name"].strip("/") != folder.strip("/"):  # some list a folder in itself
            try:
                yield from _files_below(store, info["name"], on_error)
            except OSError as error:
                if on_error is not None:
                    on_error(f"{info['name']}: {words_of(error)}")


def _place_of(info: dict[str, Any]) -> str:
    """A folder stands where the files below it do."""
    name = str(info["name"])
    return name.rstrip("/") + "/" if info["type"] == "directory" else name


def address_of(like: str, path: str, other: str) -> str:
    """The address of the path `other`, in the store where the address `like` has the path `path`.

    What the two have in common at their ends is the path below the host, or the container.
    """
    if is_address(other):
        return other
    like, chain, rest = like.partition("::")
    like, path = like.rstrip("/"), path.rstrip("/")
    backwards = [like[::-1], path[::-1]]
    common = len(os.path.commonprefix(backwards))  # noqa: RUF071 - of letters
    root, top = like[: len(like) - common], path[: len(path) - common]
    return f"{root}{other.removeprefix(top)}{chain}{rest}"
