"""Metrics on scores: thin, named wrappers over scikit-learn, and what it lacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auc(fake: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve; nan where a class is missing."""
    from sklearn.metrics import roc_auc_score

    fake = np.asarray(fake)
    if len(np.unique(fake)) < 2:
        return float("nan")
    return float(roc_auc_score(fake, scores))


def average_precision(fake: ArrayLike, scores: ArrayLike) -> float:
    """Average precision of the fakes; nan where a class is missing."""
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


def expected_calibration_error(
    fake: ArrayLike, probability: ArrayLike, bins: int = 15
) -> float:
    """ECE over equal-width bins: mean of |mean probability - share of fakes|, by bin size.

    The same definition as torchmetrics' BinaryCalibrationError(norm="l1") (Guo et al. 2017),
    on the probability of fake.
    """
    fake, probability = np.asarray(fake, float), np.asarray(probability, float)
    index = np.clip((probability * bins).astype(int), 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    used = count > 0
    confidence = np.bincount(index, probability, bins)[used] / count[used]
    share = np.bincount(index, fake, bins)[used] / count[used]
    return float(np.sum(np.abs(confidence - share) * count[used]) / len(fake))


def bootstrap(
    statistic: object,
    fake: NDArray[np.bool_],
    scores: NDArray[np.float64],
    *,
    repeats: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95% percentile interval of `statistic(fake, scores)`, images drawn within each class."""
    rng = np.random.default_rng(seed)
    assert callable(statistic)
    groups = [np.flatnonzero(fake == value) for value in (False, True)]
    values = np.empty(repeats)
    for i in range(repeats):
        pick = np.concatenate([rng.choice(g, len(g)) for g in groups if len(g)])
        values[i] = statistic(fake[pick], scores[pick])
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)
