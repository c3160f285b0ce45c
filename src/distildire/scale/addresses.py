"""Object stores and other places that fsspec opens: `s3://`, `gs://`, `memory://`, ...

Credentials are those of the store's own package. `file://` is the local file.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

from distildire.io.pictures import MAX_BYTES, PICTURE_SUFFIXES
from distildire.io.text import words_of
from distildire.scale.items import Item, SourceError, failing

T = TypeVar("T")

TRIES = 4
"""A store that is busy (503) or drops a connection is asked so often, ever later."""

FIRST_WAIT = 0.2
"""Seconds before the second try; they double."""

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def is_address(text: str) -> bool:
    """Whether it begins with a protocol."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def local_form(text: str) -> str:
    """`file://` addresses as the path that they are."""
    return text[len("file://") :] if text.lower().startswith("file://") else text


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
    """What `call` gives, asked again where the store fails for a moment."""
    for wait in range(TRIES - 1):
        try:
            return call()
        except _FINAL:
            raise
        except OSError:
            time.sleep(FIRST_WAIT * 2**wait)
    return call()


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


def item_at(address: str) -> Item:
    """Look at an object, without reading it."""
    try:
        store, path = open_store(address)
        return item_from(address, patiently(lambda: store.info(path)))
    except FileNotFoundError:
        return Item(address, None, None, read=partial(failing, "cannot be read: no such file"))
    except (OSError, SourceError) as error:
        return Item(
            address, None, None, read=partial(failing, f"cannot be read: {words_of(error)}")
        )


def item_from(address: str, info: dict[str, Any]) -> Item:
    """An item from what a store tells of an object."""
    size, when, etag = info.get("size"), modified(info), info.get("ETag") or info.get("etag")
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


def pictures_below(address: str) -> Iterator[Item]:
    """The pictures of a folder in a store, in the order of their names."""
    store, path = open_store(address)
    found: dict[str, dict[str, Any]] = patiently(lambda: store.find(path, detail=True))
    for name in sorted(found):
        if PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES:
            yield item_from(address_of(address, name), found[name])


def address_of(like: str, path: str) -> str:
    """The address of a path in the store of the address `like`."""
    return path if is_address(path) else f"{like.partition('://')[0]}://{path.lstrip('/')}"
