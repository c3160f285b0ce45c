"""Ranking inside groups."""

from __future__ import annotations

import numpy as np

from distildire.data.ranking import pair_auc


def test_pair_auc_is_the_mean_inside_groups_with_both_classes() -> None:
    fake = np.array([0, 1] * 10 + [1] * 6, bool)
    groups = np.array(["a"] * 10 + ["b"] * 10 + ["c"] * 6)
    scores = np.r_[np.tile([0.0, 1.0], 5), np.tile([1.0, 0.0], 5), np.full(6, 9.0)]
    mean, inside = pair_auc(fake, scores, groups, min_class=5)
    assert inside == {"a": 1.0, "b": 0.0}
    assert mean == 0.5


def test_how_many_of_a_class_count_as_a_group() -> None:
    fake = np.array([0, 1, 0, 0, 1, 1], bool)
    groups = np.array(["a"] * 2 + ["b"] * 4)
    scores = np.array([0.0, 1.0, 0.0, 2.0, 1.0, 3.0])
    assert pair_auc(fake, scores, groups, min_class=1) == (0.875, {"a": 1.0, "b": 0.75})
    assert pair_auc(fake, scores, groups, min_class=2) == (0.75, {"b": 0.75})
    assert np.isnan(pair_auc(fake, scores, groups, min_class=3)[0])
