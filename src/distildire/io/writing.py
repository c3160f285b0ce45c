"""Files that are there whole or not at all, however their writing ends."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def whole_file(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends well, and is dropped otherwise.

    Until then it is `.<name>.<process>-<thread>.tmp` beside it, so that several may write one
    file at once: the last one stays. `durable`: it outlives a power cut as soon as the block
    has ended, at the price of a wait for the disk.
    """
    hidden = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with hidden.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        hidden.replace(path)
        if durable:
            _sync_folder(path.parent)
    finally:
        hidden.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path, durable=durable) as file:
        file.write(text.encode())


def write_json(
    path: Path, content: object, *, indent: int = 1, durable: bool = False, **options: Any
) -> None:
    """Write readable JSON, whole or not at all; `options` as for `json.dumps`."""
    write_text(path, json.dumps(content, indent=indent, **options) + "\n", durable=durable)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
