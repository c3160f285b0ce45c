"""Metrics on scores: thin, named wrappers over scikit-learn, and what it lacks.

Everywhere `fake` is [N] booleans (the positive class), `scores` [N] rise with "fake" and
`probability` [N] is that of fake, 0..1. A figure that needs both classes is nan without
them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distildire.data.ranking import auc

METRICS = ("acc", "real_acc", "fake_acc", "ap", "auc", "tpr_at_1fpr", "tpr_at_5fpr", "ece")
"""The names in metrics.json, in their order."""

ECE_BINS = 15


def average_precision(fake: ArrayLike, scores: ArrayLike) -> float:
    """Average precision of the fakes."""
    from sklearn.metrics import average_precision_score

    fake = np.asarray(fake)
    if len(np.unique(fake)) < 2:
        return float("nan")
    return float(average_precision_score(fake, scores))


def tpr_at_fpr(fake: ArrayLike, scores: ArrayLike, fpr: float) -> float:
    """Largest true-positive rate whose false-positive rate is at most `fpr` (both in 0..1)."""
    from sklearn.metrics import roc_curve

    fake = np.asarray(fake)
    if len(np.unique(fake)) < 2:
        return float("nan")
    false_positive, true_positive, _ = roc_curve(fake, scores, drop_intermediate=False)
    return float(true_positive[false_positive <= fpr].max(initial=0.0))


def bin_of(probability: NDArray[np.float64], bins: int = ECE_BINS) -> NDArray[np.int64]:
    """Bin 0..bins of each probability: [i / bins, (i + 1) / bins), and one for exactly 1."""
    return np.searchsorted(np.linspace(0.0, 1.0, bins + 1), probability, side="right") - 1


def expected_calibration_error(
    fake: ArrayLike, probability: ArrayLike, bins: int = ECE_BINS
) -> float:
    """ECE over equal-width bins: mean of |mean probability - share of fakes|, by bin size.

    The same definition as torchmetrics' BinaryCalibrationError(norm="l1") (Guo et al. 2017),
    on the probability of fake, down to the bin of its own that a probability of exactly 1
    has there.
    """
    fake, probability = np.asarray(fake, float), np.asarray(probability, float)
    if not len(fake):
        return float("nan")
    index = bin_of(probability, bins)
    off = np.bincount(index, probability, bins + 1) - np.bincount(index, fake, bins + 1)
    return float(np.abs(off).sum() / len(fake))


def accuracies(fake: ArrayLike, probability: ArrayLike) -> tuple[float, float, float]:
    """(all, of the reals, of the fakes): "fake" is said over a probability of 0.5."""
    fake, said = np.asarray(fake, bool), np.asarray(probability, float) > 0.5
    right = fake == said

    def share(rows: NDArray[np.bool_]) -> float:
        return float(rows.mean()) if len(rows) else float("nan")

    return share(right), share(right[~fake]), share(right[fake])


def all_metrics(fake: ArrayLike, scores: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """Every figure of `METRICS`; ranking figures from `scores`, the others from `probability`."""
    acc, real_acc, fake_acc = accuracies(fake, probability)
    values = (
        acc, real_acc, fake_acc, average_precision(fake, scores), auc(fake, scores),
        tpr_at_fpr(fake, scores, 0.01), tpr_at_fpr(fake, scores, 0.05),
        expected_calibration_error(fake, probability),
    )  # fmt: skip
    return dict(zip(METRICS, values, strict=True))
