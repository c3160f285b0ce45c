"""Bootstrap intervals of all metrics at once, on sorted scores and resampling weights.

A resample is a weight for each image (how often it was drawn). The scores are sorted once;
true and false positives at every threshold are then cumulative sums of the weights, for
many resamples together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distildire.calibration import sigmoid
from distildire.evaluate.metrics import ECE_BINS, METRICS, bin_of
from distildire.evaluate.operating_point import tpr_draws

MIN_IMAGES = 20
"""Images of a class under which no interval is made up for its figures."""

MIN_CLUSTERS = 5
"""Sources of a class under which no interval by sources is made up."""

FIRM_IMAGES = 100
"""Images of each class under which the intervals are called approximate."""

FIRM_BUDGET = 3
"""Real images that a false-positive budget must allow for the interval of its TPR to be firm."""

TPR_BUDGETS = {"tpr_at_1fpr": 0.01, "tpr_at_5fpr": 0.05}
"""The figures that are read at a false-positive rate."""

LEVEL = 0.95
"""Coverage aimed at."""

_CELLS = 400_000
"""Weights held at once (resamples x images): bounds the memory to some 30 MB."""

Counts = NDArray[np.integer[Any]]

Intervals = dict[str, tuple[float, float]]


def bootstrap_intervals(
    fake: ArrayLike,
    scores: ArrayLike,
    probability: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> Intervals:
    """Intervals of the metrics: name -> (low, high).

    Resamples are drawn within each class. The interval is symmetric on the logit scale,
    from the resamples' standard deviation there: it stays inside 0..1 and covers better
    than percentiles (simulated: AUC, 2 x 200 images, 95.3% against 92.3%). A figure of
    exactly 0 or 1, about which resamples know nothing, gets the exact binomial bound for
    its number of images. The ECE of few images is biased upwards, its square by about as much
    as that of resamples is again: its lower end is the basic one of the square, not under 0,
    and its upper end takes no bias off, so that it covers more than `LEVEL`.
    AP is biased in small samples, by an amount that resamples know only roughly: its interval
    reaches from the one around the estimate to the one around the estimate less that bias,
    with Student's t for the normal quantile. A TPR at a fixed FPR has percentiles of
    `tpr_draws`; drawn by clusters it has the interval of the other figures, which covers less
    where the budget allows few real images.

    What the intervals cover on simulated scores is in docs/evaluation.md.

    Args:
        fake: [N] booleans.
        scores: [N], rising with "fake".
        probability: [N] of fake, 0..1.
        clusters: [N] names; images are then drawn by whole clusters, because images of one
            source are not independent. Clusters of one class, of the other and of both are
            drawn separately, so that no resample lacks a class.
        repeats: resamples.
        seed: of the draws.

    Returns:
        Only what can be said: metrics that need a class with fewer than `MIN_IMAGES` images
        (or `MIN_CLUSTERS` clusters) are absent.
    """
    fake, scores = np.asarray(fake, bool), np.asarray(scores, float)
    probability = np.asarray(probability, float)
    names = _supported(fake, clusters)
    if not names:
        return {}
    order = np.argsort(-scores, kind="stable")
    fake, scores, probability = fake[order], scores[order], probability[order]
    if clusters is None:
        resamples = _image_weights(fake, repeats, seed)
    else:
        resamples = _cluster_weights(fake, np.asarray(clusters)[order], repeats, seed)
    kernel = MetricKernel(fake, scores, probability)
    values = np.concatenate([kernel(weights) for weights in resamples])
    estimate = kernel(np.ones((1, len(fake)), np.int32))[0]
    images = _Images(scores[~fake], scores[fake], clusters is not None, repeats, seed)
    columns = {name: METRICS.index(name) for name in names}
    return {
        name: _RECIPES[name](float(estimate[column]), values[:, column], images)
        for name, column in columns.items()
    }


def approximate_intervals(n_real: int, n_fake: int, *, clustered: bool = False) -> list[str]:
    """The metrics whose interval may hold the truth more or less often than it says.

    The ECE always; a TPR where its budget allows fewer than `FIRM_BUDGET` real images, or
    images are drawn by clusters; every figure of a class of fewer than `FIRM_IMAGES`.
    """
    few = {"real_acc": n_real < FIRM_IMAGES, "fake_acc": n_fake < FIRM_IMAGES, "ece": True}
    few |= {
        name: clustered or budget * n_real < FIRM_BUDGET - 1e-9 or n_fake < FIRM_IMAGES
        for name, budget in TPR_BUDGETS.items()
    }
    return [name for name in METRICS if few.get(name, min(n_real, n_fake) < FIRM_IMAGES)]


def logit_interval(
    estimate: float,
    values: NDArray[np.float64],
    count: int,
    *,
    biased: bool = False,
) -> tuple[float, float]:
    """Estimate +- quantile x standard deviation of the resamples, on the logit scale.

    `biased`: with Student's quantile in the place of the normal one, and moved by the bias of
    the resamples as far as it is not.
    """
    tail = (1.0 - LEVEL) / 2
    bound = tail ** (1.0 / count)
    if estimate >= 1.0:
        return bound, 1.0
    if estimate <= 0.0:
        return 0.0, 1.0 - bound
    edge = 0.25 / count
    inside = np.clip(np.append(values, estimate), edge, 1.0 - edge)
    logits = np.log(inside / (1.0 - inside))
    quantile, shift = NormalDist().inv_cdf(1.0 - tail), np.zeros(2)
    if biased:
        from scipy.stats import t

        quantile, bias = float(t.ppf(1.0 - tail, count - 1)), logits[:-1].mean() - logits[-1]
        shift = np.array([min(0.0, -bias), max(0.0, -bias)])
    ends = logits[-1] + shift + quantile * logits[:-1].std() * np.array([-1.0, 1.0])
    low, high = sigmoid(ends)
    return min(float(low), estimate), max(float(high), estimate)


def auc_resamples(
    fake: ArrayLike, scores: ArrayLike, *, repeats: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """AUC of resamples drawn within each class: [repeats].

    Equal `fake` and `seed` draw equal pictures, so that the AUCs of two scores of the same
    pictures can be compared resample by resample.
    """
    fake, scores = np.asarray(fake, bool), np.asarray(scores, float)
    order = np.argsort(-scores, kind="stable")
    kernel = MetricKernel(fake[order], scores[order], np.full(len(fake), 0.5))
    column = METRICS.index("auc")
    draws = _image_weights(fake, repeats, seed)
    return np.concatenate([kernel(weights[:, order])[:, column] for weights in draws])


def _percentiles(estimate: float, draws: NDArray[np.float64]) -> tuple[float, float]:
    """Those of the draws, and the estimate within them."""
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return min(float(low), estimate), max(float(high), estimate)


def _ece_interval(estimate: float, values: NDArray[np.float64]) -> tuple[float, float]:
    """Root of 2 x estimate^2 - the upper percentile squared, to estimate + normal reach."""
    tail = (1.0 - LEVEL) / 2
    low = np.sqrt(max(0.0, 2 * estimate**2 - float(np.quantile(values, 1.0 - tail)) ** 2))
    reach = NormalDist().inv_cdf(1.0 - tail) * float(values.std())
    return float(low), min(1.0, estimate + reach)


@dataclass(frozen=True)
class _Images:
    """What is judged, and how it is drawn."""

    real: NDArray[np.float64]
    """Scores of the real images."""
    fake: NDArray[np.float64]
    clustered: bool
    """Whole clusters are drawn."""
    repeats: int
    seed: int

    @property
    def fewer(self) -> int:
        """Images of the smaller class."""
        return min(len(self.real), len(self.fake))


def _tpr_interval(
    estimate: float, values: NDArray[np.float64], images: _Images, *, budget: float
) -> tuple[float, float]:
    """Percentiles of `tpr_draws`, which know no clusters."""
    if images.clustered:
        return logit_interval(estimate, values, images.fewer)
    draws = tpr_draws(
        images.real, images.fake, budget, draws=2 * images.repeats, seed=images.seed
    )  # fmt: skip
    return _percentiles(estimate, draws)


Recipe: TypeAlias = Callable[[float, NDArray[np.float64], _Images], tuple[float, float]]
"""(estimate, its value in each resample [repeats], what was drawn from) -> (low, high)."""

_RECIPES: dict[str, Recipe] = {
    "acc": lambda told, drawn, of: logit_interval(told, drawn, len(of.real) + len(of.fake)),
    "real_acc": lambda told, drawn, of: logit_interval(told, drawn, len(of.real)),
    "fake_acc": lambda told, drawn, of: logit_interval(told, drawn, len(of.fake)),
    "ap": lambda told, drawn, of: logit_interval(told, drawn, of.fewer, biased=True),
    "auc": lambda told, drawn, of: logit_interval(told, drawn, of.fewer),
    "ece": lambda told, drawn, of: _ece_interval(told, drawn),
    **{name: partial(_tpr_interval, budget=budget) for name, budget in TPR_BUDGETS.items()},
}
"""How the interval of each of `METRICS` is made; `bootstrap_intervals` says why so."""


def _supported(fake: NDArray[np.bool_], clusters: ArrayLike | None) -> list[str]:
    """The metrics that the images (and clusters) at hand allow an interval for."""
    present = [bool((fake == c).any()) for c in (False, True)]
    enough = []
    for c in (False, True):
        rows = fake == c
        few = clusters is not None and (len(np.unique(np.asarray(clusters)[rows])) < MIN_CLUSTERS)
        enough.append(int(rows.sum()) >= MIN_IMAGES and not few)
    whole = all(ok or not there for ok, there in zip(enough, present, strict=True))
    allowed = {"real_acc": enough[0], "fake_acc": enough[1], "acc": whole, "ece": whole}
    return [name for name in METRICS if allowed.get(name, all(enough))]


def _image_weights(fake: NDArray[np.bool_], repeats: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Weights [R, N] in portions of R: images drawn with replacement within each class."""
    rng = np.random.default_rng(seed)
    strata = [rows for c in (False, True) if len(rows := np.flatnonzero(fake == c))]
    for size in _portions(repeats, len(fake)):
        weights = np.zeros((size, len(fake)), np.int32)
        for rows in strata:
            weights[:, rows] = _counts(rng, size, len(rows))
        yield weights


def _cluster_weights(
    fake: NDArray[np.bool_], clusters: NDArray[np.generic], repeats: int, seed: int
) -> Iterator[NDArray[np.int32]]:
    """Weights [R, N]: whole clusters drawn with replacement among those of like classes."""
    rng = np.random.default_rng(seed)
    names, index = np.unique(clusters, return_inverse=True)
    has = np.stack([np.bincount(index[fake == c], minlength=len(names)) > 0 for c in (False, True)])
    kinds = has[0] + 2 * has[1]
    for size in _portions(repeats, len(fake)):
        drawn = np.zeros((size, len(names)), np.int32)
        for kind in np.unique(kinds):
            members = np.flatnonzero(kinds == kind)
            drawn[:, members] = _counts(rng, size, len(members))
        yield drawn[:, index]


def _portions(repeats: int, images: int) -> Iterator[int]:
    size = max(1, min(repeats, _CELLS // images))
    for start in range(0, repeats, size):
        yield min(size, repeats - start)


def _counts(rng: np.random.Generator, size: int, n: int) -> NDArray[np.int64]:
    """How often each of n things is drawn in n draws with replacement: [size, n]."""
    draws = rng.integers(0, n, (size, n))
    draws += np.arange(size)[:, None] * n
    return np.bincount(draws.ravel(), minlength=size * n).reshape(size, n)


class MetricKernel:
    """The metrics of weighted images, which are sorted by falling score: arrays [N]."""

    def __init__(
        self,
        fake: NDArray[np.bool_],
        scores: NDArray[np.float64],
        probability: NDArray[np.float64],
    ) -> None:
        self.fake = fake.astype(np.int32)
        # Images of one score stand or fall together: thresholds lie at the ends of ties.
        self.ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
        right = fake == (probability > 0.5)
        inside = np.eye(ECE_BINS + 1)[bin_of(probability)]
        off = inside * (probability - fake)[:, None]
        self.columns = np.column_stack([~fake, fake, right & ~fake, right & fake, off])

    def __call__(self, weights: NDArray[np.int32]) -> NDArray[np.float64]:
        """Weights [R, N] -> metrics [R, len(METRICS)]."""
        sums = weights.astype(float) @ self.columns
        real, fakes = sums[:, 0], sums[:, 1]
        count = real + fakes
        tp = np.cumsum(weights * self.fake, axis=1)[:, self.ends]
        positives = np.cumsum(weights, axis=1)[:, self.ends]
        fp = positives - tp
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.column_stack(
                [
                    (sums[:, 2] + sums[:, 3]) / count,
                    sums[:, 2] / real,
                    sums[:, 3] / fakes,
                    _average_precision(tp, positives) / fakes,
                    _area(tp, fp) / (real * fakes),
                    _tpr(tp, fp, real, 0.01) / fakes,
                    _tpr(tp, fp, real, 0.05) / fakes,
                    np.abs(sums[:, 4:]).sum(axis=1) / count,
                ]
            )


def _average_precision(tp: Counts, positives: Counts) -> NDArray[np.float64]:
    """Sum over thresholds of precision x new true positives: [R]."""
    gained = np.diff(tp, axis=1, prepend=0)
    return np.asarray(np.einsum("rg,rg->r", gained, tp / np.maximum(positives, 1)))


def _area(tp: Counts, fp: Counts) -> NDArray[np.float64]:
    """Trapezoids under true over false positives: [R]."""
    step = np.diff(fp, axis=1, prepend=0)
    height = tp.astype(float)
    height[:, 1:] += tp[:, :-1]
    return np.asarray(np.einsum("rg,rg->r", step, height) / 2)


def _tpr(tp: Counts, fp: Counts, real: NDArray[np.float64], fpr: float) -> NDArray[np.float64]:
    """True positives at the last threshold whose false-positive rate is at most `fpr`: [R]."""
    last = (fp / np.maximum(real, 1)[:, None] <= fpr).sum(axis=1)
    picked = np.take_along_axis(tp, np.maximum(last - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(last > 0, picked, 0)
