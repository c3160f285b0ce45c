"""The folds that the metadata's baseline is measured in."""

from __future__ import annotations

import numpy as np

from distildire.data.giveaways import folds_of_groups


def test_folds_hold_whole_groups_of_both_classes() -> None:
    rng = np.random.default_rng(0)
    groups = rng.choice([f"s{i}" for i in range(17)], 400)
    fake = np.array([int(g[1:]) % 3 == 0 for g in groups])
    fake[groups == "s4"] = rng.random((groups == "s4").sum()) < 0.5
    fold, words = folds_of_groups(groups, fake)
    assert "whole sources" in words
    for g in np.unique(groups):
        assert len(np.unique(fold[groups == g])) == 1
    for k in np.unique(fold):
        assert len(np.unique(fake[fold == k])) == 2


def test_one_source_a_class_falls_back_to_single_pictures() -> None:
    groups = np.array(["a"] * 20 + ["b"] * 20)
    fake = groups == "b"
    fold, words = folds_of_groups(groups, fake)
    assert "single pictures" in words
    assert all(len(np.unique(fake[fold == k])) == 2 for k in np.unique(fold))
