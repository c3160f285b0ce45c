"""Datasets that come as a list of files: ForensicHub's JSON and GRIP's CSV."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distildire.data.manifest import (
    FAKE,
    REAL,
    ManifestError,
    refuse_both_labels,
    refuse_odd_names,
    translate_labels,
)
from distildire.io.text import TextError, brief, encoding_of, name_meant, rows_of, western, words_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class LayoutError(ManifestError):
    """A dataset in none of the layouts; the message lists those known and what was seen."""


LISTS = (
    "ForensicHub: a .json list of {path, label: 0 or 1}",
    "GRIP: a .csv with the columns filename and typ (real, or the generator's name)",
)

MANIFEST_COLUMNS = ["path", "label", "split", "generator", "source"]


def read_list(path: Path) -> pd.DataFrame:
    """Read one list; the columns are those of `read_layout`.

    ForensicHub: a JSON list of `{"path", "label"}`, 1 for generated. GRIP: a CSV with
    `filename` and `typ`, "real" or the generator. Relative paths are relative to the list.

    Raises:
        LayoutError: unreadable, of another form, or none of its pictures is there.
        ManifestError: a picture has both labels.
    """
    import pandas as pd

    rows = _forensichub(path) if path.suffix.lower() == ".json" else _grip(path)
    refuse_odd_names((cell for row in rows for cell in row), str(path))
    table = pd.DataFrame(rows, columns=MANIFEST_COLUMNS)
    if table.empty:
        raise LayoutError(f"{path}: an empty list")
    table["label"] = translate_labels(table["label"], str(path))
    table["path"] = [str(path.absolute().parent / name) for name in table["path"]]
    refuse_both_labels(table, str(path))
    there = table["path"].map(os.path.isfile)
    if not there.any():
        raise LayoutError(
            f"{path}: none of its {len(table)} pictures is there, the first would be "
            f"{brief(table['path'].iloc[0])}; relative paths are relative to the list"
        )
    if not there.all():
        log.warning("%s: %d of %d pictures are absent", path, (~there).sum(), len(table))
    table = table[there].drop_duplicates("path").sort_values("path").reset_index(drop=True)
    name = "ForensicHub" if path.suffix.lower() == ".json" else "GRIP"
    table.attrs = {"layout": name, "left_out": int((~there).sum())}
    return table


def read_lists(folder: Path) -> pd.DataFrame | None:
    """Read the ForensicHub and GRIP lists that lie directly in `folder`; None if there are none.

    The name of a list (train.json) gives the split; of a picture that several name, the first.

    Raises:
        LayoutError: one can't be read (see `read_list`).
        ManifestError: a picture has both labels.
    """
    import pandas as pd

    lists = [p for p in sorted(folder.glob("*.json")) if _is_forensichub(p)]
    lists += [p for p in sorted(folder.glob("*.csv")) if is_grip(p)]
    if not lists:
        return None
    tables = [read_list(path) for path in lists]
    table = pd.concat(tables, ignore_index=True)
    refuse_both_labels(table, str(folder))
    again = table.duplicated("path")
    if again.any():
        log.warning("%s: %d pictures of a list are in an earlier one, whose split they take",
                    folder, again.sum())  # fmt: skip
    table = table[~again].sort_values("path").reset_index(drop=True)
    table.attrs = {
        "layout": tables[0].attrs["layout"],
        "left_out": sum(t.attrs["left_out"] for t in tables),
    }
    return table


def _split_of(path: Path) -> str:
    words = path.stem.lower().replace("-", "_").split("_")
    names = {"train": "train", "val": "val", "validation": "val", "test": "test"}
    return next((names[word] for word in words if word in names), "")


def _forensichub(path: Path) -> list[tuple[str, str, str, str, str]]:
    try:
        entries = json.loads(path.read_text(encoding_of(path), "surrogateescape"))
    except TextError as error:
        raise LayoutError(str(error)) from None
    except (ValueError, OSError) as error:
        raise LayoutError(f"{path}: not readable JSON: {words_of(error)}") from error
    if not _is_entries(entries):
        raise LayoutError(f"{path}: not a list of datasets. Known: {'; '.join(LISTS)}")
    return [
        (name_meant(str(entry["path"]), path.parent), str(entry["label"]), _split_of(path), "", "")
        for entry in entries
    ]


def _is_entries(entries: Any) -> bool:
    return isinstance(entries, list) and all(
        isinstance(entry, dict) and {"path", "label"} <= set(entry) for entry in entries
    )


def _is_forensichub(path: Path) -> bool:
    # Only the start is looked at: an annotation file of another kind may have gigabytes.
    try:
        with path.open(encoding=encoding_of(path), errors="surrogateescape") as file:
            start = file.read(2000)
    except (TextError, UnicodeError):
        return False
    return start.lstrip().startswith("[") and '"path"' in start and '"label"' in start


def _grip(path: Path) -> list[tuple[str, str, str, str, str]]:
    try:
        table = [
            (name_meant(row["filename"], path.parent), western(row["typ"]))
            for row in rows_of(path, ["filename", "typ"])
        ]
    except TextError as error:
        raise LayoutError(f"{error}. Known: {'; '.join(LISTS)}") from None
    rows = []
    for name, kind in table:
        real = kind.strip().lower() == REAL
        source = Path(name).parent.as_posix()
        rows.append((name, REAL if real else FAKE, "", "" if real else kind, source))
    return rows


def is_grip(path: Path) -> bool:
    """Whether a file is a list in GRIP's form."""
    try:
        next(rows_of(path, ["filename", "typ"], lambda _: None), None)
    except TextError:
        return False
    return True
