"""Which rows are trained on, and which are held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distildire.data.manifest import ManifestError
from distildire.data.stream import sampling_weights
from distildire.distill.config import TrainConfig
from distildire.distill.split import read_split
from distildire.distill.validation import validation_summary


@pytest.mark.parametrize("repository", [None, ""])
def test_a_split_for_validation_needs_no_repositories(
    config: TrainConfig, manifest: Path, repository: str | None
) -> None:
    table = pd.read_csv(manifest).drop(columns="repository")
    table.loc[table["source"].isin(["v1", "v2"]), "split"] = "val"
    if repository is not None:
        table["repository"] = repository
    path = manifest.parent / "no-repository.csv"
    table.to_csv(path, index=False)
    data = replace(config.data, manifests=(str(path),), val_sources=(), val_split="val")
    training, val = read_split(replace(config, data=data))
    assert (len(training), len(val)) == (48, 48)
    weights = sampling_weights(training, power=0.5, max_share=1.0, pair_weight=2.0)
    assert weights.sum() == pytest.approx(1)
    logits = np.where(val["label"] == "fake", 1.0, -1.0)
    assert validation_summary(val, logits)["pairs"] == 1


def test_split_keeps_a_repository_together(config: TrainConfig, manifest: Path) -> None:
    table = pd.read_csv(manifest)
    table.loc[table["source"] == "t2", "repository"] = "v1"
    path = manifest.parent / "shared-repository.csv"
    table.to_csv(path, index=False)
    data = replace(config.data, manifests=(str(path),))
    training, val = read_split(replace(config, data=data))
    assert set(training["source"]) == {"t1"}
    assert set(val["source"]) == {"t2", "v1", "v2"}
    with pytest.raises(ValueError, match="nowhere"):
        read_split(replace(config, data=replace(config.data, val_sources=("nowhere",))))


def test_no_manifest_is_said(config: TrainConfig) -> None:
    with pytest.raises(ManifestError, match="names no manifest"):
        read_split(replace(config, data=replace(config.data, manifests=())))


def test_splits_share_no_repository(rough_fakes: TrainConfig, tmp_path: Path) -> None:
    training, validation = read_split(rough_fakes)
    assert (len(training), len(validation)) == (16, 8)
    path = Path(rough_fakes.data.manifests[0])
    table = pd.read_csv(path)
    table.loc[20, "repository"] = "train0"
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="both sides: train0"):
        read_split(rough_fakes)


def parts_of(config: TrainConfig, folder: Path, **second: list[str]) -> TrainConfig:
    """Its manifest, and a second one of the first rows with other columns."""
    first = Path(config.data.manifests[0])
    rows = pd.read_csv(first).drop(columns=["split", "repository"])
    rows = rows.iloc[: len(next(iter(second.values())))].assign(**second)
    rows.to_csv(folder / "second.csv", index=False)
    manifests = (str(first), str(folder / "second.csv"))
    return replace(config, data=replace(config.data, manifests=manifests))


def test_a_manifest_without_splits_is_taken_whole_beside_one_with(
    rough_fakes: TrainConfig, config: TrainConfig, tmp_path: Path
) -> None:
    more = ["a.png", "b.png", "c.png"]
    for options, counts in ((rough_fakes, (19, 8)), (config, (51, 48))):
        training, val = read_split(parts_of(options, tmp_path, path=more, source=["t9"] * 3))
        assert (len(training), len(val)) == counts
        assert {Path(path).name for path in training["path"][-3:]} == set(more)


def test_a_picture_of_two_manifests_is_one_with_one_label_on_one_side(
    rough_fakes: TrainConfig, tmp_path: Path
) -> None:
    table = pd.read_csv(rough_fakes.data.manifests[0])
    paths = table["path"][:3].to_list()
    training, val = read_split(parts_of(rough_fakes, tmp_path, path=paths))
    assert (len(training), len(val)) == (16, 8)
    other = ["fake" if label == "real" else "real" for label in table["label"][:3]]
    with pytest.raises(ManifestError, match=r"0\.png is labelled both real and fake"):
        read_split(parts_of(rough_fakes, tmp_path, label=other))
    with pytest.raises(ManifestError, match=r"pictures on both sides: .*0\.png"):
        read_split(parts_of(rough_fakes, tmp_path, split=["val"] * 3))


def test_what_rows_of_no_split_are_is_said(rough_fakes: TrainConfig) -> None:
    data = replace(rough_fakes.data, split="")
    with pytest.raises(
        ManifestError, match=r"one class only: data\.split is '' \('': rows that tell"
    ):
        read_split(replace(rough_fakes, data=data))
