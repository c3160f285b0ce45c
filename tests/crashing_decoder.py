"""A decoder with faults that a file can ask for, to stand in for hostile files."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Any

from distildire.io.pictures import ImageError, decode_bytes

ABORT, SPIN, EAT = b"PLEASE-ABORT", b"PLEASE-SPIN", b"PLEASE-EAT"
SEGFAULT, WRITE, TELL = b"PLEASE-SEGFAULT", b"PLEASE-WRITE", b"PLEASE-TELL"
KILL = b"PLEASE-KILL"
"""The process that asks for the file."""


def decode(data: bytes, *, max_pixels: int) -> Any:
    """As `decode_bytes`, unless the file holds one of the words above."""
    if ABORT in data:
        os.abort()
    if SEGFAULT in data:
        ctypes.string_at(0)
    if KILL in data:
        os.kill(os.getppid(), signal.SIGKILL)
    while SPIN in data:
        pass
    if EAT in data:
        return bytearray(2**36)
    if TELL in data:
        raise ImageError(f"process {os.getpid()}")
    if WRITE in data:
        target = Path(data.partition(WRITE)[2].decode())
        try:
            with target.open("wb") as file:
                file.write(b"x" * 10)
        except OSError as error:
            raise ImageError(f"not written: {error.strerror}") from None
    return decode_bytes(data, max_pixels=max_pixels)
