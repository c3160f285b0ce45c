"""Rows on their way out: JSON lines, CSV or a table, to a file or to stdout."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any


def write_jsonl(rows: Iterable[dict[str, Any]], file: IO[str]) -> None:
    """One object a line, flushed line by line: a killed run keeps what it has judged."""
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()


def write_csv(
    rows: Iterable[dict[str, Any]], columns: Sequence[str], file: IO[str], *, header: bool = True
) -> None:
    """The given columns; None is an empty cell."""
    writer = csv.DictWriter(file, columns, extrasaction="ignore")
    if header:
        writer.writeheader()
    for row in rows:
        writer.writerow(row)
        file.flush()


def write_table(rows: Iterable[dict[str, Any]], file: IO[str], note: str) -> None:
    """A table for reading, with a note under it on what the numbers mean."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"fake": "red", "real": "green", "unsure": "yellow"}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("picture", "verdict", "P(fake)", "", "size"):
        table.add_column(name, justify="right" if name == "P(fake)" else "left", overflow="fold")
    for row in rows:
        if row["error"]:
            table.add_row(row["path"], Text("error", "magenta"), "", row["error"], "")
            continue
        bar = "█" * round(row["probability"] * 10) + "░" * (10 - round(row["probability"] * 10))
        colour = colours[row["verdict"]]
        table.add_row(
            row["path"], Text(row["verdict"], colour), f"{row['probability']:.2f}",
            Text(bar, colour), f"{row['width']} x {row['height']}",
        )  # fmt: skip
    # A pipe has no width of its own: wide enough for long paths beats eighty columns.
    console = Console(file=file, width=None if file.isatty() else 120)
    console.print(table)
    console.print(note, style="dim", highlight=False)


def resume_jsonl(path: Path) -> set[str]:
    """Paths that a JSON-lines file holds already; a line cut short by a kill is removed."""
    if not path.is_file():
        return set()
    done: set[str] = set()
    with path.open("rb+") as file:
        good = 0
        for line in file:
            try:
                row = json.loads(line)
                if not line.endswith(b"\n"):
                    break
                done.add(row["path"])
            except (ValueError, KeyError, TypeError):
                break
            good += len(line)
        if good < os.fstat(file.fileno()).st_size:
            file.truncate(good)
    return done
