"""Methods without torch, quick to open in the processes of a GPU's table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any


class Quick:
    passes, note = 1, "quick"

    def figures(self, files: Sequence[bytes]) -> dict[str, Any]:
        time.sleep(0.01)
        if len(files) > 2:
            raise MemoryError("CUDA out of memory. Tried to allocate much.\nMore words")
        return {"seconds_unet": 0.01, "seconds_total": 0.02, "extrapolated": False}

    def params(self) -> int:
        return 7

    def flops(self, data: bytes) -> int:
        return 100


def quick(device: str) -> Quick:
    return Quick()


def broken(device: str) -> Quick:
    raise ImportError("No module named 'diffusers'")


def hanging(device: str) -> Quick:
    time.sleep(600)
    raise AssertionError


def crashing(device: str) -> Quick:
    os.abort()
