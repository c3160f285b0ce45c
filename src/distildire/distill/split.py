"""Which pictures a run trains on, and which choose its checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distildire.data.manifest import ManifestError, fingerprint, read_manifests, rows_of_split
from distildire.distill.config import TrainConfig

if TYPE_CHECKING:
    import pandas as pd


def read_split(config: TrainConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and validation rows; a repository of a validation source is held out whole."""
    table = read_manifests(config.data.manifests)
    if config.data.val_split:
        wanted = {"training": config.data.split, "validation": config.data.val_split}
        parts = [
            rows_of_split(table, split) if split else table[table["split"] == ""]
            for split in wanted.values()
        ]
        for name, part in zip(wanted, parts, strict=True):
            if part["label"].nunique() < 2:
                raise ManifestError(f"the {name} rows (split {wanted[name]}) hold one class only")
        names = [set(p["repository"].dropna()) - {""} for p in parts if "repository" in p]
        if names and (shared := set.intersection(*names)):
            raise ManifestError(f"repositories on both sides: {', '.join(sorted(shared)[:5])}")
        return parts[0].reset_index(drop=True), parts[1].reset_index(drop=True)
    # Manifests that know of no splits, as WebDataset's classes do, are one.
    if config.data.split and (table["split"] != "").any():
        table = rows_of_split(table, config.data.split)
    sources = ", ".join(sorted(set(table["source"]))[:8])
    if not config.data.val_sources:
        raise ManifestError(
            "which rows choose the checkpoint? set data.val_sources to some of the sources "
            f"({sources}), or data.val_split to a split"
        )
    unknown = set(config.data.val_sources) - set(table["source"])
    if unknown:
        raise ManifestError(
            f"val_sources not in the manifests: {', '.join(sorted(unknown))} (sources: {sources})"
        )
    held_out = table["source"].isin(config.data.val_sources)
    if "repository" in table:
        named = table["repository"].fillna("") != ""
        held_out |= named & table["repository"].isin(table["repository"][held_out & named])
    for name, part in (("training", table[~held_out]), ("validation", table[held_out])):
        if part["label"].nunique() < 2:
            raise ManifestError(f"the {name} rows hold one class only: choose other val_sources")
    return table[~held_out].reset_index(drop=True), table[held_out].reset_index(drop=True)


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
