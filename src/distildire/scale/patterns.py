"""Names with `*`, `?`, `[..]`, `{0000..0099}` and `{a,b}`, here or in a store."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from distildire.io.addresses import is_address
from distildire.io.finding import is_litter_path
from distildire.io.pictures import PICTURE_SUFFIXES
from distildire.io.tars import braces
from distildire.io.text import words_of
from distildire.scale.addresses import address_of, open_store, patiently, without_query
from distildire.scale.items import SourceError


def expand(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for, in order; a name that exists stands for itself.

    Pictures and folders below a folder that was given before are left out, as it gives them.

    Raises:
        SourceError: a pattern that nothing matches.
    """
    if not is_address(pattern) and Path(pattern).exists():
        yield pattern
        return
    found, folders = False, set[str]()
    try:
        names = braces(pattern)
    except ValueError as error:
        raise SourceError(str(error)) from None
    for name in names:
        if not glob.has_magic(without_query(name)):
            matches: Iterable[tuple[str, bool]] = [(name, False)]
        elif is_address(name):
            matches = _glob_in_store(name)
        else:
            here = sorted(glob.iglob(name, recursive=True))  # noqa: PTH207 - absolute ones too
            matches = ((match, Path(match).is_dir()) for match in here)
        for match, is_folder in matches:
            found = True
            given = is_folder or PurePosixPath(match).suffix.lower() in PICTURE_SUFFIXES
            if given and folders and any(above in folders for above in _above(match)):
                continue
            if is_folder:
                folders.add(match.rstrip("/"))
            yield match
    if not found:
        raise SourceError(f"{pattern}: nothing matches this pattern")


def _above(name: str) -> Iterator[str]:
    """The folders in which a name lies."""
    while "/" in name.rstrip("/"):
        name = name.rstrip("/").rpartition("/")[0]
        yield name


def _glob_in_store(pattern: str) -> Iterator[tuple[str, bool]]:
    """(address, whether it is a folder) of each match."""
    store, path = open_store(pattern)
    try:
        matches = sorted(patiently(lambda: store.glob(path, detail=True)).items())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SourceError(f"{pattern}: cannot be read: {words_of(error)}") from None
    for match, info in matches:
        if not is_litter_path(match):
            yield address_of(pattern, path, match), info["type"] == "directory"
