"""An interval for the true-positive rate at a false-positive budget.

The threshold that spends exactly the budget is not known: it lies between two real pictures,
and which two is itself uncertain. With 200 real pictures and a budget of 1% the number above
it is 0 to 5, so that resampling the pictures, which never puts it above the highest real one,
covers too little. The Bayesian bootstrap of the ROC
(Gu, Ghosal & Roy 2008) draws the place of every real picture on the false-positive axis
instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def tpr_draws(
    real: NDArray[np.float64],
    fake: NDArray[np.float64],
    fpr: float,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Draws [draws] of the TPR at the false-positive rate `fpr`, from scores of both classes.

    The shares of the distribution of reals that lie between neighbouring real scores are
    Dirichlet, as spacings of uniform numbers are; likewise for the fakes. Between two real
    scores the ROC is taken as straight. Above the highest, where no real picture tells of it,
    TPR is taken to fall to 0 as the root of FPR: nearly so for scores of normal and logistic
    tails, while a straight line gives needlessly wide intervals.
    """
    rng = np.random.default_rng(seed)
    real, fake = np.sort(real)[::-1], np.sort(fake)[::-1]
    n_real, n_fake = len(real), len(fake)
    # Fakes above each real score, with the ends of the axis: a tie is no detection.
    above = np.searchsorted(-fake, -real, side="left")
    above = np.concatenate([[0], above, [n_fake]])
    # Of n uniform numbers k lie below fpr; the largest of these and the smallest of the others
    # are the places of the two real scores around the threshold.
    k = rng.binomial(n_real, fpr, draws)
    low = np.where(k > 0, fpr * _largest(rng, np.maximum(k, 1)), 0.0)
    rest = n_real - k
    high = 1 - np.where(rest > 0, (1 - fpr) * _largest(rng, np.maximum(rest, 1)), 0.0)
    share = (fpr - low) / (high - low)
    before, after = _between_places(rng, n_fake, above[k], above[k + 1])
    before = np.where(k == 0, 0.0, before)
    share = np.where(k == 0, np.sqrt(share), share)
    return np.asarray(before + (after - before) * share)


def _largest(rng: np.random.Generator, n: NDArray[np.int64]) -> NDArray[np.float64]:
    """The largest of n uniform numbers, for every n."""
    return np.asarray(rng.random(len(n)) ** (1 / n))


def _between_places(
    rng: np.random.Generator, n: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Midpoints between the sorted uniform numbers k and k + 1 of n, for k = `first`, `second`.

    0 and 1 count as numbers 0 and n + 1; `first` is at most `second`. Steps between sorted
    uniform numbers are exponential numbers over their sum, and sums of these are gamma.
    """
    apart = second > first
    between = np.maximum(second - first - 1, 0)
    steps = rng.standard_gamma(np.stack([first, np.ones_like(first), between, apart, n - second]))
    ends = np.cumsum(steps, axis=0) / steps.sum(axis=0)
    before = (ends[0] + ends[1]) / 2
    return before, np.where(apart, (ends[2] + ends[3]) / 2, before)
