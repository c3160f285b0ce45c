"""Pictures inside a plain tar, by name and in any order: `SHARD.tar::MEMBER` in place of a path.

A plain tar holds its members as they are, so that one is read as fast as a file of its own. The
places of all are looked up once per process.
"""

from __future__ import annotations

import logging
import math
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

BETWEEN = "::"
"""Stands between a shard's path and the name of what is in it."""

SUFFIX = ".tar"

MOST_NAMES = 1_000_000
"""That a pattern with braces may stand for."""

_BRACES, _NUMBERS = re.compile(r"\{([^{}]*)\}"), re.compile(r"(\d{1,18})\.\.(\d{1,18})")

log = logging.getLogger(__name__)


class Span(NamedTuple):
    """Where a member's bytes lie."""

    start: int
    size: int


def split_member(path: str) -> tuple[str, str] | None:
    """(shard, member) of `SHARD.tar::MEMBER`; None for any other path."""
    shard, between, member = path.partition(SUFFIX + BETWEEN)
    return (shard + SUFFIX, member) if between and member else None


def member_size(shard: str, member: str) -> int:
    """Bytes of a member.

    Raises:
        OSError: no such tar or member, or no plain tar.
    """
    return _span(shard, member).size


def read_member(shard: str, member: str) -> bytes:
    """The bytes of a member.

    Raises:
        OSError: as `member_size`; a tar cut short.
    """
    start, size = _span(shard, member)
    with Path(shard).open("rb") as file:
        file.seek(start)
        data = file.read(size)
    if len(data) < size:
        raise OSError("the tar is cut short in this picture")
    return data


class Names:
    """The names that a shard has given, so that each of its pictures has one of its own."""

    def __init__(self) -> None:
        self._given: Counter[int] = Counter()

    def lone(self, name: str, mark: int | None = None) -> str:
        """The name; where it was there before, with `#` and `mark`, or how often it came."""
        while self._given[hash(name)]:
            self._given[hash(name)] += 1
            name = f"{name}#{self._given[hash(name)] if mark is None else mark}"
        self._given[hash(name)] += 1
        return name


def named(found: Iterable[tarfile.TarInfo]) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files and links of a tar and their names; one that comes again ends in `#2`, `#3`, ..."""
    names = Names()
    for member in found:
        if member.isfile() or member.islnk() or member.issym():
            yield names.lone(member.name), member


def target_of(link: tarfile.TarInfo) -> str:
    """The member that a link stands for: a symbolic one names it from its own folder."""
    folder = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(folder, link.linkname))


def members(shard: str) -> dict[str, Span]:
    """The files in a plain tar, in its order, by their names as `named` gives them; no links.

    What comes before the place where a tar is cut short is there; a warning is logged.

    Raises:
        OSError: no such file, or no plain tar.
    """
    return _contents(shard)[0]


def _contents(shard: str) -> tuple[dict[str, Span], dict[str, Span]]:
    facts = Path(shard).stat()
    return _read(shard, facts.st_mtime_ns, facts.st_size)


@cache
def _read(shard: str, _time: int, _size: int) -> tuple[dict[str, Span], dict[str, Span]]:
    """`members` of a tar as it is now; links, and what has to be asked for by its very name."""
    files: dict[str, Span] = {}
    others: dict[str, Span] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            try:
                for name, member in named(tar):
                    if not member.isreg():
                        links[name] = target_of(member)
                    elif not member.issparse():
                        place = Span(member.offset_data, member.size)
                        if files.setdefault(posixpath.normpath(name), place) != place:
                            others[name] = place
            except tarfile.TarError as error:
                log.warning("%s: cut short or damaged (%s): the rest is lost", shard, error)
    except tarfile.TarError as error:
        raise OSError(f"not a plain, uncompressed tar ({error})") from None
    others |= {name: files[target] for name, target in links.items() if target in files}
    return files, others


def _span(shard: str, member: str) -> Span:
    files, others = _contents(shard)
    place = others.get(member) or files.get(posixpath.normpath(member))
    if place is None:
        raise OSError(f"{Path(shard).name} has no such member")
    return place


def braces(pattern: str) -> Iterator[str]:
    """`a-{08..10}.tar` -> a-08.tar, a-09.tar, a-10.tar; `{a,b}` -> a, b; several multiply.

    Raises:
        ValueError: more than `MOST_NAMES`.
    """
    number = math.prod(map(_choices, _BRACES.findall(pattern)))
    if number > MOST_NAMES:
        raise ValueError(
            f"{pattern}: stands for {number:.4g} names, over the limit of {MOST_NAMES:,}"
        )
    return _braces(pattern)


def _choices(inside: str) -> int:
    numbers = _NUMBERS.fullmatch(inside)
    if numbers is None:
        return inside.count(",") + 1
    return max(0, int(numbers[2]) - int(numbers[1]) + 1)


def _braces(pattern: str) -> Iterator[str]:
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    numbers = _NUMBERS.fullmatch(found[1])
    if numbers is not None:
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        first, last = int(numbers[1]), int(numbers[2])
        parts = [f"{n:0{width}d}" for n in range(first, last + 1)]
    else:
        parts = found[1].split(",")
    for part in parts:
        for rest in _braces(pattern[found.end() :]):
            yield f"{pattern[: found.start()]}{part}{rest}"
