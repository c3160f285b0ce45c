"""Metrics against scikit-learn and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distildire.data.ranking import auc
from distildire.evaluate.metrics import (
    METRICS,
    accuracies,
    all_metrics,
    average_precision,
    expected_calibration_error,
    tpr_at_fpr,
)


def simulated(seed: int, n: int = 400, decimals: int = 12) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    fake = rng.random(n) < rng.uniform(0.2, 0.8)
    scores = np.round(rng.normal(size=n) + fake * rng.uniform(0, 2), decimals)
    return fake, scores


@pytest.mark.parametrize("decimals", [12, 1])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_torchmetrics(seed: int, decimals: int) -> None:
    from torchmetrics import functional as tm

    fake, scores = simulated(seed, decimals=decimals)
    probability = 1 / (1 + np.exp(-scores))
    preds, target = torch.from_numpy(probability), torch.from_numpy(fake.astype(int))
    assert auc(fake, probability) == pytest.approx(
        float(tm.auroc(preds, target, "binary")), abs=1e-6
    )
    ap = float(tm.average_precision(preds, target, "binary"))
    assert average_precision(fake, probability) == pytest.approx(ap, abs=1e-6)
    ece = float(tm.calibration_error(preds, target, "binary", n_bins=15, norm="l1"))
    assert expected_calibration_error(fake, probability) == pytest.approx(ece, abs=1e-9)
    acc, real_acc, fake_acc = accuracies(fake, probability)
    assert acc == pytest.approx(float(tm.accuracy(preds, target, "binary")), abs=1e-6)
    assert fake_acc == pytest.approx(float(tm.recall(preds, target, "binary")), abs=1e-6)
    assert real_acc == pytest.approx(float(tm.specificity(preds, target, "binary")), abs=1e-6)


@pytest.mark.parametrize("decimals", [12, 1])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(seed: int, decimals: int) -> None:
    from sklearn import metrics as sk

    fake, scores = simulated(seed, decimals=decimals)
    probability = 1 / (1 + np.exp(-scores))
    got = all_metrics(fake, scores, probability)
    assert list(got) == list(METRICS)
    said = probability > 0.5
    fpr, tpr, _ = sk.roc_curve(fake, scores, drop_intermediate=False)
    expected = {
        "acc": sk.accuracy_score(fake, said),
        "real_acc": sk.recall_score(~fake, ~said),
        "fake_acc": sk.recall_score(fake, said),
        "ap": sk.average_precision_score(fake, scores),
        "auc": sk.roc_auc_score(fake, scores),
        "tpr_at_1fpr": max(tpr[fpr <= 0.01]),
        "tpr_at_5fpr": max(tpr[fpr <= 0.05]),
    }
    for name, value in expected.items():
        assert got[name] == pytest.approx(value, abs=1e-9), name


def test_ece_at_the_ends_and_at_bin_edges() -> None:
    from torchmetrics.functional import calibration_error

    probability = np.array([0.0, 1.0, 1.0, 0.2, 0.6, 1 / 15, 0.999, 14 / 15])
    fake = np.array([0, 1, 0, 1, 0, 1, 1, 0])
    expected = calibration_error(
        torch.from_numpy(probability), torch.from_numpy(fake), "binary", n_bins=15, norm="l1"
    )
    assert expected_calibration_error(fake, probability) == pytest.approx(float(expected), abs=1e-9)


def test_tpr_at_fpr_by_hand() -> None:
    fake = np.array([1, 1, 0, 1, 0, 0, 0, 0], bool)
    scores = np.arange(8, 0, -1.0)
    assert tpr_at_fpr(fake, scores, 0.0) == pytest.approx(2 / 3)
    assert tpr_at_fpr(fake, scores, 0.2) == pytest.approx(1.0)
    assert tpr_at_fpr(fake, np.zeros(8), 0.5) == 0.0


def test_one_class_has_no_ranking_figures() -> None:
    got = all_metrics(np.zeros(5, bool), np.arange(5.0), np.full(5, 0.2))
    assert got["acc"] == got["real_acc"] == 1.0
    assert all(np.isnan(got[name]) for name in ("fake_acc", "ap", "auc", "tpr_at_1fpr"))
