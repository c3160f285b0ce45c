"""Names with `*`, `?`, `[..]`, `{0000..0099}` and `{a,b}`, here or in a store."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from distildire.io.addresses import is_address
from distildire.io.finding import is_litter_path
from distildire.io.tars import braces
from distildire.io.text import words_of
from distildire.scale.addresses import address_of, open_store, patiently, without_query
from distildire.scale.items import SourceError


def expand(pattern: str) -> Iterator[str]:
    """The names that a pattern stands for, in order; a name that exists stands for itself.

    Raises:
        SourceError: a pattern that nothing matches.
    """
    if not is_address(pattern) and Path(pattern).exists():
        yield pattern
        return
    found = False
    try:
        names = braces(pattern)
    except ValueError as error:
        raise SourceError(str(error)) from None
    for name in names:
        if not glob.has_magic(without_query(name)):
            matches: Iterable[str] = [name]
        elif is_address(name):
            matches = _glob_in_store(name)
        else:
            matches = sorted(glob.iglob(name, recursive=True))  # noqa: PTH207 - absolute ones too
        for match in matches:
            found = True
            yield match
    if not found:
        raise SourceError(f"{pattern}: nothing matches this pattern")


def _glob_in_store(pattern: str) -> Iterator[str]:
    store, path = open_store(pattern)
    try:
        matches = sorted(patiently(lambda: store.glob(path)))
    except FileNotFoundError:
        return
    except OSError as error:
        raise SourceError(f"{pattern}: cannot be read: {words_of(error)}") from None
    for match in matches:
        if not is_litter_path(match):
            yield address_of(pattern, path, match)
