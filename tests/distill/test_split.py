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
