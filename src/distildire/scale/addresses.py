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
from urllib.parse import unquote

from distildire.io.finding import is_litter_path
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


def is_address(text: str) -> bool:
    """Whether it begins with a protocol."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def is_web(text: str) -> bool:
    """Whether it is an address of HTTP, in which `?` begins a query."""
    return text.lower().startswith(("http://", "https://"))


def without_query(address: str) -> str:
    """An address up to its query: what its name ends in."""
    return re.split(r"[?#]", address, maxsplit=1)[0] if is_web(address) else address


def local_form(text: str) -> str:
    """`file://` addresses as the path that they are."""
    if not text.lower().startswith("file://"):
        return text
    path = text[len("file://") :]
    return unquote(path.removeprefix("localhost") if path.startswith("localhost/") else path)


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


def pictures_below(address: str) -> Iterator[Item]:
    """The pictures of a folder in a store, in the order of their names."""
    store, path = open_store(address)
    found: dict[str, dict[str, Any]] = patiently(lambda: store.find(path, detail=True))
    for name in sorted(found):
        below = name.removeprefix(path)
        suffix = PurePosixPath(without_query(name)).suffix.lower()
        if suffix in PICTURE_SUFFIXES and not is_litter_path(below):
            item = item_from(address_of(address, path, name), found[name])
            # A web server's list of links tells nothing of them: each is asked for.
            told = item.size is not None or item.mtime is not None or item.etag is not None
            yield item if told else item_at(item.path)


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
