"""One item made ready for the network: read, hashed, decoded and cut, with what it declares."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distildire.gate import nothing_to_judge
from distildire.io.hashing import sha256_of
from distildire.io.pictures import (
    MAX_PIXELS,
    RGB,
    Source,
    decode,
    decode_bytes,
    read_bytes,
    read_file,
)
from distildire.io.preprocessing import Preprocessing
from distildire.provenance import declares


@dataclass(frozen=True)
class Loaded:
    """One item made ready for the network, or what is wrong with it."""

    path: str
    """To appear in the verdict."""
    sha256: str | None = None
    """Of the file's bytes; of the pixels for pictures and arrays."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the whole picture."""
    crops: NDArray[np.uint8] | None = None
    """uint8 [crops, S, S, 3]; None where `error` is set."""
    error: str | None = None
    note: str | None = None
    """Why there is nothing to judge."""
    declares: str | None = None
    """What the file says of its own origin."""
    rgb: RGB | None = None
    """The whole picture, uint8 [H, W, 3], where it was to be kept."""


@dataclass(frozen=True)
class Unread:
    """A picture that is read when its turn comes."""

    path: str
    """To appear in the verdict."""
    read: Callable[[], bytes]
    """Gives the file's bytes, or raises what is wrong with it."""
    held: int = 0
    """Bytes that are in memory before it is read."""


Given: TypeAlias = Source | Unread


def held_by(item: Given) -> int:
    """Bytes of what is read when its turn comes that are in memory before; else 0."""
    return item.held if isinstance(item, Unread) else 0


def is_file(item: Any) -> bool:
    """Whether it is a file opened for reading."""
    return callable(getattr(item, "read", None)) and not isinstance(item, Image.Image)


def load(
    item: Given,
    preprocessing: Preprocessing,
    *,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    decoder: Callable[..., RGB] = decode_bytes,
    keep: bool = False,
) -> Loaded:
    """Read, hash, decode and cut one item; what is wrong with it goes into `error`.

    Args:
        item: a path, the bytes of a file, a picture or an array.
        preprocessing: cuts the crops.
        name: to appear as the path of what is no path itself.
        max_pixels: larger pictures are refused.
        decoder: of the bytes of a file.
        keep: hand on the whole picture too, for what else is to be told of it.
    """
    path, sha256, said = name, None, None
    try:
        path = shown_name(item) or name
        content = content_of(item)
        if isinstance(content, bytes):
            sha256 = sha256_of(content)
            rgb = decoder(content, max_pixels=max_pixels)
            said = declares(content)
        else:
            rgb = decode(content, max_pixels=max_pixels)
            sha256 = sha256_of(rgb.tobytes())
        size = (rgb.shape[1], rgb.shape[0])
        crops = preprocessing(rgb)
        note = nothing_to_judge(rgb, crops)
        kept = rgb if keep else None
        return Loaded(path, sha256, size, crops, note=note, declares=said, rgb=kept)
    # Whatever one item does, it has its row and the others theirs.
    except Exception as error:
        return Loaded(path, sha256, error=what_is_wrong(error))


def shown_name(item: Given) -> str:
    """A path as it is given; empty for what has none."""
    if isinstance(item, Unread):
        return item.path
    return os.fsdecode(item) if isinstance(item, str | os.PathLike) else ""


def content_of(item: Given) -> Any:
    """The bytes of a file; a picture or an array as it is.

    An open file is read from its beginning, wherever it stands.
    """
    if isinstance(item, str | os.PathLike):
        item = read_bytes(Path(os.fsdecode(item)))
    elif isinstance(item, Unread):
        item = item.read()
    elif is_file(item):
        item = read_file(item)
    return bytes(item) if isinstance(item, bytes | bytearray | memoryview) else item


def what_is_wrong(error: Exception) -> str:
    """One sentence for the owner of an item."""
    if isinstance(error, MemoryError):
        return "too large to judge in the memory at hand"
    return " ".join(str(error).split()) or type(error).__name__
