"""The folder that `score` writes into, here or in a store; files are there whole or not at all,
as far as the store sees to it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from distildire.io.addresses import is_address, local_form
from distildire.io.text import words_of
from distildire.io.writing import make_folder, only_writer, whole_file
from distildire.scale.addresses import (
    info_at,
    is_web,
    open_store,
    patiently,
)
from distildire.scale.items import SourceError

LOCK = "_score.lock"
"""Held by the run that writes into a folder on a disk."""


class Folder(Protocol):
    """What is asked of a folder."""

    def __str__(self) -> str: ...

    def prepare(self) -> None:
        """Make it.

        Raises:
            NotADirectoryError: it is a file.
        """

    def only_writer(self) -> AbstractContextManager[None]:
        """Be the only process that writes there, as far as that can be had.

        Raises:
            BusyError: another process writes there.
        """

    def names(self) -> list[str]:
        """Of the files in it, in order."""

    def open(self, name: str) -> BinaryIO:
        """A file to read."""

    def write(self, name: str, save: Callable[[BinaryIO], object]) -> None:
        """Let `save` fill a file that takes its name when it is whole."""

    def remove(self, name: str) -> None:
        """Delete a file."""


class LocalFolder:
    """On a disk of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def prepare(self) -> None:
        """As `Folder`."""
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(self.path)
        make_folder(self.path)

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """As `Folder`; what a killed run left is cleared away."""
        with only_writer(self.path, self.path / LOCK):
            for left in self.path.glob(".*.tmp"):
                left.unlink()
            yield

    def names(self) -> list[str]:
        """As `Folder`."""
        return sorted(path.name for path in self.path.iterdir()) if self.path.is_dir() else []

    def open(self, name: str) -> BinaryIO:
        """As `Folder`."""
        return (self.path / name).open("rb")

    def write(self, name: str, save: Callable[[BinaryIO], object]) -> None:
        """As `Folder`; it outlives a power cut."""
        with whole_file(self.path / name, durable=True) as file:
            save(file)

    def remove(self, name: str) -> None:
        """As `Folder`."""
        (self.path / name).unlink()


class StoreFolder:
    """In a store: in object stores, an object appears when all of it has arrived.

    Others (sftp, smb, hdfs) write files in place: a killed run may leave half a part.
    """

    def __init__(self, address: str) -> None:
        """Name it.

        Raises:
            SourceError: a store that can't be written to, or see `open_store`.
        """
        self.address = address.rstrip("/")
        if is_web(address):
            raise SourceError(
                f"{address}: HTTP stores can't be written to: give --out a folder, or the "
                "address of a store that can (s3://, gs://, ...)"
            )
        self._store, path = open_store(self.address)
        self._path = path.rstrip("/")

    def __str__(self) -> str:
        return self.address

    def prepare(self) -> None:
        """As `Folder`.

        Raises:
            SourceError: the store can't be reached, or not be written to.
        """
        try:
            info = info_at(self.address)
            if info is not None and info["type"] == "file":
                raise NotADirectoryError(self.address)
            patiently(lambda: self._store.makedirs(self._path, exist_ok=True))
        except (NotADirectoryError, FileExistsError):
            raise
        except OSError as error:
            raise SourceError(f"{self.address}: cannot be written to: {words_of(error)}") from None

    def only_writer(self) -> AbstractContextManager[None]:
        """Nothing: stores have no locks."""
        return nullcontext()

    def names(self) -> list[str]:
        """As `Folder`."""
        self._store.invalidate_cache(self._path)
        try:
            found: list[dict[str, Any]] = patiently(lambda: self._store.ls(self._path, detail=True))
        except FileNotFoundError:
            return []
        return sorted(i["name"].rpartition("/")[2] for i in found if i["type"] == "file")

    def open(self, name: str) -> BinaryIO:
        """As `Folder`."""
        return io.BytesIO(patiently(lambda: self._store.cat_file(f"{self._path}/{name}")))

    def write(self, name: str, save: Callable[[BinaryIO], object]) -> None:
        """As `Folder`."""
        buffer = io.BytesIO()
        save(buffer)
        try:
            patiently(lambda: self._store.pipe_file(f"{self._path}/{name}", buffer.getvalue()))
        except OSError as error:
            words = words_of(error)
            raise OSError(f"{self.address}/{name}: cannot be written: {words}") from None

    def remove(self, name: str) -> None:
        """As `Folder`."""
        patiently(lambda: self._store.rm_file(f"{self._path}/{name}"))


def folder_of(out: str | Path | Folder) -> Folder:
    """A path, or the address of a folder in a store."""
    if not isinstance(out, str | Path):
        return out
    text = local_form(str(out))
    return StoreFolder(text) if is_address(text) else LocalFolder(Path(text))
