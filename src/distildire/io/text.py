"""Text at the borders: names that are no UTF-8, streams that can't hold a name, tables of any code.

A name on disk is bytes. Python reads those that are no UTF-8 as lone surrogates, which no file
of ours can hold: they go out as `\\xNN`, in every format alike.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from distildire.io.containers import known_kind

csv.field_size_limit(2**24)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What moves a cursor, breaks a line, or turns the direction of writing."""

_SEPARATORS = (",", ";", "\t", "|")
_SAYS_SEPARATOR = re.compile('"?sep=(.)"?', re.IGNORECASE)
"""A first line that spreadsheets write."""


class TextError(ValueError):
    """A text file that can't be read; the message names the file, and the row where it is one."""


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: bytes that are none become `\\xNN`."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte: half a letter of Windows
        return text.encode("utf-8", "backslashreplace").decode()


def shown(text: str) -> str:
    """The text on one line of a terminal: storable, and what controls the terminal escaped."""
    return _CONTROL.sub(_escaped, storable(text))


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")


def brief(text: object, most: int = 300) -> str:
    """A text out of a file for a message: as `shown`, of at most `most` letters."""
    words = shown(str(text))
    return words if len(words) <= most else f"{words[: most - 3]}..."


def words_of(error: BaseException) -> str:
    """What an exception says, brief and on one line; its name if it says nothing."""
    return brief(" ".join(str(error).split()) or type(error).__name__)


def stored(value: Any) -> Any:
    """`storable` for each text in a tree of dictionaries and lists."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {key: stored(inside) for key, inside in value.items()}
    return [stored(inside) for inside in value] if isinstance(value, list) else value


def holds(file: IO[str], text: str) -> bool:
    """Whether a stream's encoding has all characters of `text`."""
    try:
        text.encode(getattr(file, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def escape_on_the_way_out() -> None:
    """Let stdout and stderr escape what their encoding lacks, where they would raise."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def encoding_of(path: Path) -> str:
    """The code of a text file: by its mark, by zeros where UTF-16 has them, else UTF-8.

    Raises:
        TextError: zeros elsewhere, as no text has them.
    """
    with path.open("rb") as file:
        start = file.read(2**16)
    head = start[:512]
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    ):  # fmt: skip
        if head.startswith(mark):
            return name
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 4 > 0 and min(even, odd) == 0:
        return "utf-16-be" if even else "utf-16-le"
    if 0 in start:
        raise TextError(f"{path}: not a text file: {known_kind(start) or 'its bytes are no text'}")
    return "utf-8"


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text file without their ends; empty ones are left out.

    Nor do they have the marks that stand where several files were joined.

    Bytes that are no UTF-8 come as lone surrogates; see `name_meant`.

    Raises:
        TextError: unreadable.
    """
    with _reading(path), path.open(encoding=encoding_of(path), errors="surrogateescape") as file:
        for line in file:
            if text := line.rstrip("\r\n").lstrip("\ufeff"):
                yield text


def rows_of(
    path: Path,
    needed: Collection[str] = (),
    on_row: Callable[[str], None] | None = None,
    *,
    filled: Collection[str] | None = None,
) -> Iterator[dict[str, str]]:
    """The rows of a CSV file by the names in its first line; missing cells are "".

    The separator (`,` `;` tab or `|`) is the one with which the first line has the columns
    `needed`, else the one that gives the most columns, or what a line `sep=;` above them says.
    Names in `needed` may be in capitals there. Rows without any text are left out.

    Args:
        path: file in UTF-8, UTF-16, or a code of one byte per letter.
        needed: columns that the file must have.
        on_row: takes a sentence for each row that is left out; else the first raises.
        filled: columns of which no cell may be empty; `needed` by default.

    Raises:
        TextError: unreadable, no such columns, two of one name, a quote that is not closed, or a
            row that can't be right.
    """
    filled = needed if filled is None else filled
    with (
        _reading(path),
        path.open(encoding=encoding_of(path), errors="surrogateescape", newline="") as file,
    ):
        lines = ((place, line) for place, line in enumerate(file, 1) if line.strip())
        place, first = next(lines, (1, ""))
        said = _SAYS_SEPARATOR.fullmatch(first.rstrip("\r\n"))
        if said:
            place, first = next(lines, (1, ""))
        separator, names = _header(first, needed, said[1] if said else _SEPARATORS)
        refuse_columns(path, names, needed)
        reader = csv.reader(
            itertools.chain([first], file), delimiter=separator, strict=True,
            skipinitialspace=f"{separator} " in first,
        )  # fmt: skip
        for number, cells in enumerate(_cells_of(reader, path, place)):
            if not number or not any(cell.strip() for cell in cells):
                continue
            row = dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))
            wrong = next((f"no {name}" for name in filled if not row[name].strip()), None)
            if any(cell.strip() for cell in cells[len(names) :]):
                wrong = (
                    f"{len(cells)} cells where the first line has {len(names)}: put a cell that "
                    f"holds {separator!r} in quotes"
                )
            if wrong is None:
                yield row
            elif on_row is None:
                raise TextError(f"{path}: row {number}: {wrong}")
            else:
                on_row(f"{path}: row {number}: {wrong}")


def refuse_columns(path: Path, names: Sequence[str], needed: Collection[str]) -> None:
    """Refuse a table that lacks a column, or has two of one name.

    Raises:
        TextError: which.
    """
    if missing := sorted(set(needed) - set(names)):
        has = brief(", ".join(names)) or "nothing"
        raise TextError(f"{path}: no column {', '.join(missing)} (it has {has})")
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise TextError(f"{path}: two columns have the name {brief(twice[0])}: keep one")


def as_needed(names: Sequence[str], needed: Collection[str]) -> list[str]:
    """Names of columns, `Path` as `path` where that is needed and not there."""
    return [
        name.lower() if name.lower() in needed and name.lower() not in names else name
        for name in names
    ]


def _cells_of(reader: Any, path: Path, line: int) -> Iterator[list[str]]:
    """The rows of a reader whose first is on `line`."""
    begins = line
    try:
        for cells in reader:
            yield cells
            begins = line + reader.line_num
    except csv.Error as error:
        raise TextError(
            f"{path}: line {begins}: a quote is not closed, or stands inside a cell: "
            f"{words_of(error)}"
        ) from None


def _header(line: str, needed: Collection[str], separators: Iterable[str]) -> tuple[str, list[str]]:
    found = []
    for separator in separators:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
        names = as_needed([western(name.strip()) for name in cells], needed)
        found.append((set(needed) <= set(names), len(names), separator, names))
    # The first of the best: a comma, where nothing tells.
    _, _, separator, names = max(found, key=lambda one: one[:2])
    return separator, names


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        raise TextError(f"{path}: not readable as text: {words_of(error)}") from None
    except csv.Error as error:
        raise TextError(f"{path}: not a readable CSV: {words_of(error)}") from None
    except OSError as error:
        raise TextError(f"{path}: cannot be read: {error.strerror or error}") from None


def name_meant(text: str, root: Path) -> str:
    """The name of a file below `root` that a cell means whose bytes may be no UTF-8.

    As it is where there is a file of exactly these bytes; else without spaces around it, and
    what they spell in Windows' code for western Europe, which holds Latin-1.
    """
    meant = western(text.strip())
    return text if meant == text or os.path.lexists(root / text) else meant


def spellings(text: str) -> list[str]:
    """The names that a text out of a table may mean, where they can't be looked for on disk.

    As it is, without spaces around it, and both in the bytes that `western` reads as it.
    """
    plain = (text, text.strip())
    return list(dict.fromkeys([*plain, *map(_in_western, plain)]))


def _in_western(text: str) -> str:
    for code in ("cp1252", "latin-1"):
        with contextlib.suppress(UnicodeEncodeError):
            return text.encode(code).decode("utf-8", "surrogateescape")
    return text


def western(text: str) -> str:
    """Text whose bytes are no UTF-8, read as Windows-1252 or, where that lacks them, Latin-1."""
    if text.isascii() or storable(text) == text:
        return text
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")
