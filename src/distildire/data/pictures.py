"""Decoded pictures held in memory, for training from small crops on few cores."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from distildire.io.pictures import RGB, ImageError, decode
from distildire.io.progress import DoneOf


def load_all(
    paths: Sequence[str], *, workers: int = 2, progress: DoneOf | None = None
) -> tuple[list[RGB], list[int]]:
    """Decode every picture: (images, the indices of `paths` they came from).

    Pictures that can't be decoded are left out, so that the second list may be shorter
    than `paths`. Memory is the sum of 3 x H x W bytes.
    """
    images: list[RGB] = []
    kept: list[int] = []
    with ThreadPoolExecutor(workers) as pool:
        for index, rgb in enumerate(pool.map(_decode_or_none, paths)):
            if rgb is not None:
                images.append(rgb)
                kept.append(index)
            if progress is not None:
                progress(index + 1, len(paths))
    return images, kept


def _decode_or_none(path: str) -> RGB | None:
    try:
        return decode(path)
    except ImageError:
        return None
