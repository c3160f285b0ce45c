"""Rows on their way out: JSON lines, CSV or a table, to a file or to stdout."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from distildire.io.text import holds, shown, stored
from distildire.io.writing import WriteError, whole_file, writing


def as_line(row: dict[str, Any], file: IO[str] | None = None) -> str:
    """A row as a line of JSON, in ASCII where the stream can't hold its letters."""
    row = stored(row)
    line = json.dumps(row, ensure_ascii=False) + "\n"
    if file is not None and not holds(file, line):
        line = json.dumps(row) + "\n"
    return line


def write_jsonl(rows: Iterable[dict[str, Any]], file: IO[str]) -> None:
    """One object per line, flushed line by line: a killed run keeps what it has judged."""
    for row in rows:
        file.write(as_line(row, file))
        file.flush()


def write_csv(
    rows: Iterable[dict[str, Any]], columns: Sequence[str], file: IO[str], *, header: bool = True
) -> None:
    """The given columns; None is an empty cell."""
    writer = csv.DictWriter(file, columns, extrasaction="ignore")
    if header:
        writer.writeheader()
    for row in rows:
        writer.writerow(stored(row))
        file.flush()


def write_table(rows: Iterable[dict[str, Any]], file: IO[str], note: str) -> None:
    """A table for reading; under it what is to be said of single rows, and of the numbers.

    Of single rows: why there is nothing to judge, what a file declares of itself, which
    re-encodings change the verdict, and where the heat map was written. Of heat maps, where some
    were drawn: how far to trust them.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"fake": "red", "real": "green", "unsure": "yellow"}
    full, empty = "█░" if holds(file, "█░") else "#."
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("picture", "verdict", "P(fake)", "", "size"):
        table.add_column(name, justify="right" if name == "P(fake)" else "left", overflow="fold")
    remarks, caution = [], ""
    for row in rows:
        # As Text, not as a string: a name with brackets is no markup.
        path = Text(shown(row["path"]))
        written = f"heat map: {row['heatmap']}" if row.get("heatmap") else None
        remarked = (row.get("note"), row.get("declares"), _stability(row), written)
        said = [words for words in remarked if words]
        remarks += [f"{row['path']}: {words}" for words in said]
        caution = row.get("heatmap_note") or caution
        if row["error"]:
            table.add_row(path, Text("error", "magenta"), "", Text(shown(row["error"])), "")
            continue
        tenths = round(row["probability"] * 10)
        colour = colours[row["verdict"]]
        table.add_row(
            path, Text(row["verdict"], colour), f"{row['probability']:.2f}",
            Text(full * tenths + empty * (10 - tenths), colour),
            f"{row['width']} x {row['height']}",
        )  # fmt: skip
    # A pipe has no width of its own: wide enough for long paths beats eighty columns.
    console = Console(file=file, width=None if file.isatty() else 120)
    console.print(table)
    for remark in remarks:
        console.print(Text(shown(remark), "dim"))
    console.print(Text(shown(f"{note} {caution}".rstrip()), "dim"))


def _stability(row: dict[str, Any]) -> str | None:
    checked = row.get("stability")
    if checked is None:
        return None
    if checked["flips"]:
        return f"the verdict changes under {', '.join(checked['flips'])}"
    copies = [name for name in checked["verdicts"] if name != "as it is"]
    return f"the verdict stays the same under {', '.join(copies)}"


class LineFile(io.TextIOBase):
    """A file of lines, each of which is there whole or not at all."""

    encoding = "utf-8"

    def __init__(self, path: Path, *, append: bool) -> None:
        self._path = path
        with writing(path):
            # Without a buffer: what could not be written is not tried again at the end.
            self._file = path.open("ab" if append else "wb", buffering=0)
            self._size = path.stat().st_size

    def write(self, line: str, /) -> int:
        """One line with its end.

        Raises:
            WriteError: the system refuses; nothing of the line is left.
        """
        rest = memoryview(line.encode("utf-8", "backslashreplace"))
        size = len(rest)
        with writing(self._path):
            try:
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
            except OSError:
                with suppress(OSError):
                    self._file.truncate(self._size)
                raise
        self._size += size
        return len(line)

    def close(self) -> None:
        """Close the file; nothing waits to be written."""
        self._file.close()
        super().close()


@contextmanager
def output(path: Path | None, *, lines: bool, append: bool = False) -> Iterator[IO[str]]:
    """Where rows go: stdout, or a file.

    A file of `lines` grows row by row, any other is there whole or not at all. A device or a
    pipe is written as it is.

    Raises:
        WriteError: the system refuses, now or in the middle.
    """
    if path is None:
        if sys.stdout is None:
            raise WriteError(None, "it is closed", "standard output")
        with writing("standard output"):
            yield sys.stdout
            sys.stdout.flush()
    elif lines:
        with LineFile(path, append=append) as file:
            yield cast(IO[str], file)
    elif path.exists() and not path.is_file():
        with writing(path), path.open("w", encoding="utf-8", errors="backslashreplace") as special:
            yield special
    else:
        with whole_file(path) as raw:
            text = io.TextIOWrapper(raw, "utf-8", "backslashreplace", newline="")
            yield text
            text.flush()
            text.detach()
