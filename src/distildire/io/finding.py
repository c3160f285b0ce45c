"""Which files a list of paths stands for, in a stable order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from distildire.io.pictures import PICTURE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".wmv",
        ".flv",
        ".3gp",
    ]
)

_NOT_OURS = frozenset(
    ["__MACOSX", ".AppleDouble", "@eaDir", ".Trashes", "$RECYCLE.BIN", "System Volume Information"]
)
"""Folders that archives and systems add, with thumbnails and halves of files."""

OnError = Callable[[str], None]


def is_litter(name: str) -> bool:
    """Whether a file is one that systems leave in folders: `._x.png` is no picture."""
    return name.startswith("._") or name in {".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini"}


def is_litter_folder(name: str) -> bool:
    """Whether a folder is one that systems leave beside a user's."""
    return name in _NOT_OURS


def is_litter_path(path: str) -> bool:
    """Whether a file, or a folder above it, is one that systems leave."""
    *folders, name = path.split("/")
    return is_litter(name) or any(map(is_litter_folder, folders))


def is_picture(path: str | Path) -> bool:
    """Whether the name ends like a picture's."""
    return Path(path).suffix.lower() in PICTURE_SUFFIXES


def is_video(path: str | Path) -> bool:
    """Whether the name ends like a video's."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_files(
    paths: Iterable[str | Path],
    on_error: OnError | None = None,
    on_other: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Files as given, and below every folder those whose names end like a picture's or video's.

    Folders are walked recursively in the order of their names; links are followed, each
    real folder once. What systems leave there (`._x.png`, `__MACOSX`) is passed over. A folder
    that can't be listed is reported to `on_error`, a file that is neither to `on_other`.
    """
    for path in paths:
        if _is_folder(path):
            yield from _walk(str(path), on_error, on_other)
        else:
            yield str(path)


def _is_folder(path: str | Path) -> bool:
    try:
        return str(path) != "" and Path(path).is_dir()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def _is_typescript(path: str) -> bool:
    """Whether a file that ends in .ts is none of MPEG's streams, which begin with a G."""
    if not path.lower().endswith(".ts"):
        return False
    try:
        if not Path(path).is_file():  # a pipe would be waited for
            return False
        with Path(path).open("rb") as file:
            return file.read(1) != b"G"
    except OSError:
        return False


def _walk(
    top: str, on_error: OnError | None, on_other: Callable[[str], None] | None
) -> Iterator[str]:
    def failed(error: OSError) -> None:
        if on_error is not None:
            on_error(f"{error.filename}: {error.strerror}")

    seen: set[str] = set()
    for folder, subfolders, names in os.walk(top, followlinks=True, onerror=failed):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not is_litter_folder(name))
        for name in sorted(names):
            if is_litter(name):
                continue
            path = str(Path(folder) / name)
            if is_picture(name) or (is_video(name) and not _is_typescript(path)):
                yield path
            elif on_other is not None:
                on_other(path)
