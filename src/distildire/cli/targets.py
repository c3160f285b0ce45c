"""Where `detect` writes its rows and heat maps, and what it refuses to write over."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from distildire.cli.app import Format, fail, refuse_input

_FORMATS = {".jsonl": Format.jsonl, ".ndjson": Format.jsonl, ".csv": Format.csv}
"""What the end of a file's name says of its format."""

_OTHER_DATA = frozenset(
    [".arrow", ".db", ".feather", ".gz", ".htm", ".html", ".json", ".ods", ".parquet", ".sqlite",
     ".tsv", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip", ".zst"]
)  # fmt: skip
"""Ends of names of files that programs read, of which none is a table for reading."""


def format_of(out: Path | None) -> Format:
    """As the file's name ends; a table where that says nothing, and on stdout."""
    end = out.suffix.lower() if out else ""
    if end in _OTHER_DATA:
        fail(
            f"--out {out}: no results are written as {end}: let it end in .jsonl or .csv, or give "
            "--format jsonl, csv or table"
        )
    return _FORMATS.get(end, Format.table)


def file_to_write(out: Path, paths: Iterable[str]) -> Path:
    """Where the results go: no input, and no picture or video that may be one."""
    from distildire.io.finding import is_picture, is_video

    if out.is_dir():
        fail(f"--out {out}: a folder has this name: give a file")
    refuse_input(out, *paths)
    if is_picture(out) or is_video(out):
        fail(f"--out {out}: the name of a picture or video, for a text: let it end in .jsonl")
    # A link stays a link, one to a file that is not there yet too.
    linked = out.is_file() or (out.is_symlink() and not out.exists())
    target = Path(os.path.realpath(out)) if linked else out
    if not target.parent.is_dir():
        fail(f"--out {out}: no such folder {target.parent}")
    return target


def refuse_pictures_in(heatmap: Path, paths: Iterable[str]) -> None:
    """Refuse a folder of heat maps that holds a folder to judge, of which nothing would be left."""
    for path in filter(None, paths):
        with contextlib.suppress(OSError, ValueError):  # too long a name: its row says so
            if Path(path).is_dir() and Path(path).resolve().is_relative_to(heatmap.resolve()):
                fail(
                    f"--heatmap {heatmap}: holds the pictures of {path}, which would pass for heat "
                    f"maps: give another folder, such as one below {path}"
                )


def but_heatmaps(files: Iterable[str], paths: Iterable[str], heatmap: Path | None) -> Iterator[str]:
    """The files without those of the folder of heat maps, unless they were named."""
    named, folder = set(paths), heatmap and heatmap.resolve()
    for path in files:
        if folder is None or path in named or not Path(path).resolve().is_relative_to(folder):
            yield path
