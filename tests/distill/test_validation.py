"""What chooses the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from distildire.distill.validation import score_table, validation_summary
from distildire.io.preprocessing import Preprocessing


def test_a_picture_that_cannot_be_scored_costs_validation_nothing_else(tmp_path: Path) -> None:
    sizes = {"whole": (80, 64), "long": (66_000, 32), "narrow": (20_000, 32)}
    for name, size in sizes.items():
        Image.new("RGB", size, "white").save(tmp_path / f"{name}.png")
    table = pd.DataFrame({"path": [str(tmp_path / f"{name}.png") for name in (*sizes, "none")]})
    cut = Preprocessing(crop=32, crops=1, short_side=512, enlarge=True)
    logits = score_table(lambda crops: crops.float().mean((1, 2, 3)), table, cut, workers=0)
    assert np.isnan(logits).tolist() == [False, True, True, True]
    assert logits[0] == pytest.approx(255, abs=1)


def test_pictures_none_of_which_can_be_read_reach_no_network(tmp_path: Path) -> None:
    """Position embeddings of a transformer, for one, are not made for batches of none."""
    Image.new("RGB", (40, 40), "white").save(tmp_path / "whole.png")
    paths = [str(tmp_path / name) for name in [*["none.png"] * 16, "whole.png"]]

    def score(crops: torch.Tensor) -> torch.Tensor:
        assert len(crops)
        return crops.float().mean((1, 2, 3))

    cut = Preprocessing(crop=32, crops=1)
    logits = score_table(score, pd.DataFrame({"path": paths}), cut, workers=0)
    assert np.isnan(logits).tolist() == [True] * 16 + [False]
    with pytest.raises(ValueError, match="has diverged"):
        score_table(lambda crops: score(crops) * torch.nan, pd.DataFrame({"path": paths}), cut,
                    workers=0)  # fmt: skip


def test_validation_counts_pairs_and_worst_sources() -> None:
    frame = pd.DataFrame(
        {
            "label": ["real"] * 20 + ["fake"] * 20,
            "source": ["p"] * 10 + ["a"] * 10 + ["p"] * 10 + ["b"] * 10,
            "repository": ["p"] * 10 + ["a"] * 10 + ["p"] * 10 + ["b"] * 10,
        }
    )
    logits = np.concatenate([np.zeros(10), -np.ones(10), np.ones(10), -2 * np.ones(10)])
    found = validation_summary(frame, logits)
    assert found["pairs"] == 1.0
    assert found["worst_quarter"] == 0.0  # source b lies below all reals
    assert found["choice"] == 0.5
    assert found["auc"] == pytest.approx(0.5)
