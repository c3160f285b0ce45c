"""Files that are there whole or not at all, however their writing ends; one writer at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


class WriteError(OSError, ValueError):
    """A file that can't be written; the message is one sentence that names it."""

    def __str__(self) -> str:
        return f"cannot write {self.filename}: {self.strerror}"


class BusyError(ValueError):
    """Another process writes there; the message names the file and the mend."""


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Name the file in whatever the system says while it is written.

    Raises:
        WriteError: disk full, no permission, a folder of that name, ...
    """
    try:
        yield
    except (BrokenPipeError, WriteError):
        raise
    except OSError as error:
        words = error.strerror or str(error).strip() or type(error).__name__
        raise WriteError(error.errno, words, str(path)) from error


def name_within(name: str, most: int) -> str:
    """A file's name in at most so many bytes: of a longer one the beginning, and a hash of it all.

    File systems take 255 bytes, or 143 where they encrypt names.
    """
    whole = name.encode("utf-8", "surrogatepass")
    if len(whole) <= most:
        return name
    end = f"~{hashlib.sha256(whole).hexdigest()[:8]}"
    while len(name.encode("utf-8", "surrogatepass")) > most - len(end):
        name = name[:-1]
    return name + end


@contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends well, and is dropped otherwise.

    Until then it is `.<name>.<process>-<thread>.tmp` beside it (of a long name its beginning), so
    that several may write one file at once: the last one stays. `durable`: it outlives a power
    cut as soon as the block has ended, at the price of a wait for the disk.

    Raises:
        WriteError: the system refuses.
    """
    name = name_within(path.name, 100)
    hidden = path.with_name(f".{name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with writing(path):
            with hidden.open("wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            hidden.replace(path)
            if durable:
                _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            hidden.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write UTF-8 text, whole or not at all; lone surrogates are escaped."""
    with whole_file(path, durable=durable) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_texts(texts: dict[Path, str]) -> None:
    """Write several files of UTF-8 text, all of them or none."""
    with contextlib.ExitStack() as stack:
        for path, text in texts.items():
            file = stack.enter_context(whole_file(path))
            with writing(path):
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()


def write_json(
    path: Path, content: object, *, indent: int = 1, durable: bool = False, **options: Any
) -> None:
    """Write readable JSON, whole or not at all; `options` as for `json.dumps`."""
    write_text(path, json.dumps(content, indent=indent, **options) + "\n", durable=durable)


@contextmanager
def whole_folder(out: Path, marker: str, kind: str) -> Iterator[Path]:
    """A folder to fill, which becomes `out` at the end: whole, or not at all.

    Args:
        out: replaced where it holds the file `marker`, made where it is missing or empty.
        marker: file by which a folder of this kind is known.
        kind: what such a folder is called, for the message.

    Raises:
        ValueError: `out` holds something else.
    """
    if out.exists() and not (out / marker).is_file() and any(out.iterdir()):
        raise ValueError(f"{out}: not empty and no {kind}; give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    filling = Path(tempfile.mkdtemp(prefix=f".{name_within(out.name, 100)}.", dir=out.parent))
    try:
        yield filling
        filling.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        filling.rename(out)
    finally:
        shutil.rmtree(filling, ignore_errors=True)


@contextmanager
def whole_files(out: Path) -> Iterator[Path]:
    """A folder to fill, whose files go to `out` when the block ends well; what else it holds stays.

    Raises:
        WriteError: no such folder can be made.
    """
    make_folder(out)
    with tempfile.TemporaryDirectory(prefix=".", dir=out) as filling:
        yield Path(filling)
        for file in Path(filling).iterdir():
            file.replace(out / file.name)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        WriteError: the system refuses, or a file has its name.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def only_writer(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Be the only process that writes `path` (a file, or a folder) while the block runs.

    The system drops the lock of a process that is dead, however it died: a lock file that was
    left behind locks nothing. It is `.<name>.lock` beside the file where `lock` names no other.

    Raises:
        BusyError: another process has it.
        WriteError: no lock file can be made there.
    """
    lock = lock or path.with_name(f".{name_within(path.name, 200)}.lock")
    with writing(lock):
        handle = _locked(path, lock)
    try:
        with contextlib.suppress(OSError):  # the name is for others to read; a full disk lacks it
            os.write(handle, f"process {os.getpid()}".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(handle)


def _locked(path: Path, lock: Path) -> int:
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _take(handle):
                raise BusyError(
                    f"{path}: another run ({_owner(handle)}) is writing it: wait for its end, or "
                    "give another --out"
                )
            with contextlib.suppress(FileNotFoundError):
                # An owner that ended in between has removed the file that was opened here.
                if os.path.samestat(os.fstat(handle), lock.stat()):
                    os.ftruncate(handle, 0)
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _owner(handle: int) -> str:
    try:
        return os.pread(handle, 40, 0).decode("ascii", "replace") or "of another process"
    except (OSError, AttributeError):
        return "of another process"


if sys.platform == "win32":

    def _take(handle: int) -> bool:
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _take(handle: int) -> bool:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
