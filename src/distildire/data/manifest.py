"""Manifests: one row per image, with its label and where it came from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Set
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from distildire.data.shards import ShardsError, is_shards, read_shards
from distildire.io.addresses import is_address, local_form
from distildire.io.text import (
    TextError,
    as_needed,
    brief,
    name_meant,
    refuse_columns,
    rows_of,
    storable,
    western,
    words_of,
)

if TYPE_CHECKING:
    import pandas as pd

REAL, FAKE = "real", "fake"

LABELS = {
    **dict.fromkeys(("real", "reals", "0_real", "nature", "natural", "no", "0", "0.0"), REAL),
    **dict.fromkeys(("camera", "photo", "authentic", "human", "false"), REAL),
    **dict.fromkeys(("fake", "fakes", "1_fake", "ai", "generated", "synthetic", "yes"), FAKE),
    **dict.fromkeys(("1", "1.0", "true"), FAKE),
}
"""Other words for the two classes, in lower case (`yes` answers "is it generated?")."""

OPTIONAL_COLUMNS = ("split", "generator", "source")


class ManifestError(ValueError):
    """A manifest that can't be used; the message names the rows and the mend."""


def read_manifest(path: str | Path) -> pd.DataFrame:
    """Read a Parquet or CSV manifest, or WebDataset's tar shards (`train-{0000..0099}.tar`).

    Returns a table with the columns `path` (absolute), `label` ("real" or "fake"), `split`,
    `generator`, `source` (empty strings where the file has none) and whatever else the file
    holds. Relative paths are taken relative to the manifest; `SHARD.tar::MEMBER` is a picture
    in a plain tar. For shards as a manifest see `read_shards`. Labels in other words
    (`LABELS`) are translated; repeated rows of one path are kept once. `file://` addresses, the
    manifest's and its rows', are the paths that they are.

    Raises:
        ManifestError: unreadable file, missing column, unknown label, one path with both
            labels, or an address of anything but a file.
    """
    import pandas as pd

    path = local_form(str(path))
    _refuse_addresses([path])
    if is_shards(path):
        try:
            table = read_shards(path)
        except ShardsError as error:
            raise ManifestError(str(error)) from None
        root = Path.cwd()
    else:
        path = Path(path)
        if not path.is_file():
            raise ManifestError(
                f"{path}: no such manifest (a .parquet or .csv file, or .tar shards are needed)"
            )
        table = read_columns(path, {"path", "label"}, "manifest")
        root = path.resolve().parent
    if table.empty:
        raise ManifestError(f"{path}: the manifest has no rows")
    for column in OPTIONAL_COLUMNS:
        values = table[column] if column in table else pd.Series("", index=table.index)
        table[column] = values.astype(object).fillna("").astype(str).str.strip()
    table["label"] = translate_labels(table["label"], str(path))
    _refuse_addresses(table["path"], f"{path}: ")
    table["path"] = [str(root / local_form(p)) for p in table["path"]]
    refuse_both_labels(table, str(path))
    return table.drop_duplicates("path").reset_index(drop=True)


def _refuse_addresses(paths: Iterable[str], where: str = "") -> None:
    """Raise ManifestError if a path is an address of anything but a file."""
    if away := next((path for path in paths if is_address(local_form(path))), None):
        raise ManifestError(
            f"{where}{brief(away)}: pictures are read in any order, and from a disk: copy the "
            "manifest or the shards, and the pictures, here first (aws s3 sync, gsutil rsync, ...)"
        )


def read_manifests(paths: Iterable[str | Path], splits: Collection[str] = ()) -> pd.DataFrame:
    """Several manifests as one table, one after the other; see `read_manifest`.

    Args:
        paths: of the manifests; a picture that several name has a row of each.
        splits: of a manifest that tells splits, only their rows ("": those without one); of one
            that tells none, as WebDataset's classes do, all rows. None: all rows of each.

    Raises:
        ManifestError: none are given, or one can't be used; a picture has both labels, or no row
            is left.
    """
    import pandas as pd

    tables = [read_manifest(path) for path in paths]
    if not tables:
        raise ManifestError("the config names no manifest of pictures to train on")
    table = pd.concat(tables, ignore_index=True)
    refuse_both_labels(table, "the manifests")
    if not splits:
        return table
    wanted = [part["split"].isin(splits) | bool((part["split"] == "").all()) for part in tables]
    rows: pd.DataFrame = table[pd.concat(wanted, ignore_index=True)].reset_index(drop=True)
    if rows.empty:
        _refuse_no_rows(table, " or ".join(map(repr, sorted(splits))))
    return rows


def refuse_both_labels(table: pd.DataFrame, where: str) -> None:
    """Raise ManifestError if rows of one path have both labels."""
    both = table.groupby("path")["label"].nunique() > 1
    if both.any():
        raise ManifestError(f"{where}: {brief(both.idxmax())} is labelled both real and fake")


def rows_of_split(table: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """The rows of one split, or all; raises ManifestError where there are none."""
    if not split:
        return table
    part = table[table["split"] == split].reset_index(drop=True)
    if not len(part):
        _refuse_no_rows(table, repr(split))
    return part


def _refuse_no_rows(table: pd.DataFrame, wanted: str) -> NoReturn:
    names = ", ".join(sorted(set(table["split"]) - {""})) or "none"
    raise ManifestError(f"no row has the split {wanted} (splits: {names})")


def read_columns(
    path: Path, needed: Set[str], what: str, filled: Set[str] | None = None
) -> pd.DataFrame:
    """Read a .parquet, or else a CSV in any of the codes and separators of `rows_of`.

    It must have the columns `needed`, and a value in each cell of `filled`, by default the
    same; `what` names it in messages. The cells of a CSV are text.

    Raises:
        ManifestError: unreadable file, a missing column, or a row without such a value.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet":
        try:
            rows = [
                {
                    name: name_meant(cell, path.parent) if name == "path" else western(cell)
                    for name, cell in row.items()
                }
                for row in rows_of(path, sorted(needed), filled=filled)
            ]
        except TextError as error:
            raise ManifestError(str(error)) from None
        refuse_odd_names((row.get("path") for row in rows), str(path))
        listed = pd.DataFrame(rows, columns=None if rows else sorted(needed))
        return listed.set_axis(as_needed(list(listed.columns), OPTIONAL_COLUMNS), axis=1)
    try:
        with pq.ParquetFile(path) as file:
            read = file.read()
        read.validate(full=True)  # else texts that are no UTF-8 raise wherever they are used
        read = read.rename_columns(as_needed(read.column_names, {*needed, *OPTIONAL_COLUMNS}))
        refuse_columns(path, read.column_names, needed)
        # What pandas took for its index is a column like any other.
        table: pd.DataFrame = read.to_pandas(ignore_metadata=True)
    except TextError as error:
        raise ManifestError(str(error)) from None
    except Exception as error:
        raise ManifestError(f"{path}: not a readable {what}: {words_of(error)}") from error
    for name in sorted(needed if filled is None else filled):
        read_text = _name_of_bytes if name == "path" else text_of_bytes
        cells = [read_text(value) for value in table[name]]
        refuse_odd_names(cells, str(path))
        values = table[name] = pd.Series(cells, table.index)
        if name == "path" and not all(isinstance(value, str) for value in values.dropna()):
            raise ManifestError(f"{path}: the column path holds {read[name].type}, not text")
        empty = values.isna() | (values.astype(str).str.strip() == "")
        if empty.any():
            raise ManifestError(f"{path}: row {int(empty.to_numpy().argmax()) + 1}: no {name}")
    return table


def _name_of_bytes(value: object) -> object:
    return os.fsdecode(value) if isinstance(value, bytes) else value


def text_of_bytes(value: object) -> object:
    """Bytes as the text that they are, in UTF-8 or else Western; what else there is, as it is."""
    return western(os.fsdecode(value)) if isinstance(value, bytes) else value


def refuse_odd_names(names: Iterable[object], where: str) -> None:
    """Raise ManifestError if the bytes of a name are no UTF-8: tables hold no such text."""
    odd = (name for name in names if isinstance(name, str) and storable(name) != name)
    if name := next(odd, None):
        raise ManifestError(
            f"{where}: the name {storable(name)} is no UTF-8, which tables can't hold: rename the "
            "file (convmv does it for whole folders)"
        )


def group_names(table: pd.DataFrame) -> NDArray[np.str_]:
    """What must stay on one side of a fold: the repository if the table has it, else the source."""
    groups = table["source"].astype(str)
    if "repository" in table:
        known = table["repository"].fillna("").astype(str)
        groups = known.where(known != "", groups)
    return np.asarray(groups.to_numpy(dtype=str))


def translate_labels(labels: pd.Series, where: str) -> pd.Series:
    """Bring labels to "real" and "fake"; raise ManifestError on a word not in `LABELS`."""
    words = labels.astype(str).str.strip().str.lower()
    known = words.map(LABELS)
    if known.isna().any():
        unknown = ", ".join(repr(brief(word, 80)) for word in words[known.isna()].unique()[:5])
        raise ManifestError(
            f"{where}: unknown label {unknown}; use real and fake (or a word like "
            "nature/ai, 0_real/1_fake, 0/1)"
        )
    return known


def fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 over the sorted (content hash or path, label) pairs: names a data set."""
    key = "sha256" if "sha256" in table else "path"
    lines = sorted(
        f"{name} {label}" for name, label in zip(table[key], table["label"], strict=True)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
