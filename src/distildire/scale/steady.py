"""Objects of a store that are read on where a read fails for a moment."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

from distildire.io.text import words_of
from distildire.scale.addresses import open_store, patiently

T = TypeVar("T")


def open_object(address: str) -> BinaryIO:
    """An object to read, through failures that pass; see `SteadyFile`."""
    store, path = open_store(address)
    return cast(BinaryIO, SteadyFile(lambda: store.open(path, "rb")))


class StoreError(OSError):
    """A store that fails for good in the middle of an object."""


class SteadyFile(io.RawIOBase):
    """An object of a store; where a read fails for a moment it is opened anew and read on.

    Raises:
        FileNotFoundError: no such object.
        StoreError: the store fails for good; then every further read does so at once, as what
            reads a stream has lost its place.
    """

    def __init__(self, open_it: Callable[[], Any]) -> None:
        super().__init__()
        self._open, self._place = open_it, 0
        self._file: Any = None
        self._size: int | None = None
        self._wrong: str | None = None
        self._steadily(lambda file: None)

    def readable(self) -> bool:
        """As all of them are."""
        return True

    def seekable(self) -> bool:
        """As far as the store's own file is, which says so when it is asked."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        if whence == io.SEEK_CUR:
            offset += self._place
        elif whence == io.SEEK_END:
            offset = self._steadily(lambda file: int(file.seek(offset, whence)))
        self._place = offset
        return offset

    def read(self, size: int | None = -1) -> bytes:
        """As of any file."""
        data: bytes = self._steadily(lambda file: file.read(-1 if size is None else size))
        self._place += len(data)
        return data

    def close(self) -> None:
        """As of any file."""
        self._drop()
        super().close()

    def _steadily(self, call: Callable[[Any], T]) -> T:
        if self._wrong is not None:
            raise StoreError(self._wrong)

        def attempt() -> T:
            try:
                return call(self._at_place())
            except Exception:
                self._drop()
                raise

        try:
            return patiently(attempt)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._wrong = words_of(error)
            raise StoreError(self._wrong) from None

    def _at_place(self) -> Any:
        file = self._file
        if file is None:
            file = self._file = self._open()
            size = getattr(file, "size", None)
            if self._size not in {None, size}:
                raise ValueError("it was changed while it was read")
            self._size = size
        if (at := file.tell()) != self._place:
            try:
                file.seek(self._place)
            except ValueError:  # a stream of HTTP, which goes forward alone
                while at < self._place:
                    passed = file.read(min(2**20, self._place - at))
                    if not passed:
                        raise
                    at += len(passed)
                if at > self._place:
                    raise
        return file

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(Exception):
                file.close()
