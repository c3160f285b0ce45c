"""Which pictures a run trains on, and which choose its checkpoint."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from distildire.data.manifest import ManifestError, fingerprint, read_manifests, rows_of_split
from distildire.distill.config import TrainConfig

if TYPE_CHECKING:
    import pandas as pd


def read_split(config: TrainConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and validation rows; a repository of a validation source is held out whole.

    Raises:
        ManifestError: unusable manifests, no rows of both classes on a side, or a picture or a
            repository on both.
    """
    data = config.data
    if data.val_split:
        table = read_manifests(data.manifests, {data.split, data.val_split})
        held_out = table["split"] == data.val_split
        rows_of_split(table, data.val_split)  # which says it where there are none
        mend = (
            f"data.split is {data.split!r} ('': rows that tell none), val_split {data.val_split!r}"
        )
    else:
        table = read_manifests(data.manifests, {data.split} if data.split else ())
        held_out = _of_sources(table, data.val_sources)
        mend = "choose other val_sources"
    sides = {"training": table[~held_out], "validation": table[held_out]}
    for name, part in sides.items():
        if part["label"].nunique() < 2:
            raise ManifestError(f"the {name} rows hold one class only: {mend}")
    for what, where in (("repository", "repositories"), ("path", "pictures")):
        names = [set(p[what].dropna()) - {""} for p in sides.values() if what in p]
        if names and (shared := set.intersection(*names)):
            raise ManifestError(f"{where} on both sides: {', '.join(sorted(shared)[:5])}")
    train, val = (p.drop_duplicates("path").reset_index(drop=True) for p in sides.values())
    return train, val


def _of_sources(table: pd.DataFrame, val_sources: Collection[str]) -> pd.Series:
    """Whether each row is of one of these sources, or of a repository of theirs."""
    sources = ", ".join(sorted(set(table["source"]))[:8])
    if not val_sources:
        raise ManifestError(
            "which rows choose the checkpoint? set data.val_sources to some of the sources "
            f"({sources}), or data.val_split to a split"
        )
    unknown = set(val_sources) - set(table["source"])
    if unknown:
        raise ManifestError(
            f"val_sources not in the manifests: {', '.join(sorted(unknown))} (sources: {sources})"
        )
    held_out = table["source"].isin(val_sources)
    if "repository" in table:
        named = table["repository"].fillna("") != ""
        held_out |= named & table["repository"].isin(table["repository"][held_out & named])
    return held_out


def describe_data(config: TrainConfig) -> dict[str, Any]:
    """What the model card tells of the data: counts, sources and the fingerprint."""
    table, val = read_split(config)
    return {
        "train_images": len(table),
        "train_sources": sorted(table["source"].unique()),
        "train_fingerprint": fingerprint(table),
        "val_images": len(val),
        "val_sources": sorted(val["source"].unique()),
        "val_fingerprint": fingerprint(val),
    }
