"""Files that are there whole or not at all, however their writing ends."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when the block ends well, and is dropped otherwise.

    Until then it is `.<name>.<process>-<thread>.tmp` beside it, so that several may write one
    file at once: the last one stays.
    """
    hidden = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with hidden.open("wb") as file:
            yield file
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write readable JSON, whole or not at all."""
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
