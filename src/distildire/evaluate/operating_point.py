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

_CELLS = 400_000
"""Numbers drawn at once: bounds the memory to some 20 MB."""


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
    # Fakes above each real score, with the ends of the axis: a tie is no detection.
    above = np.searchsorted(-fake, -real, side="left")
    above = np.concatenate([[0], above, [len(fake)]])
    size = max(1, _CELLS // (len(real) + len(fake)))
    parts = [
        _draw(above, len(real), len(fake), fpr, min(size, draws - start), rng)
        for start in range(0, draws, size)
    ]
    return np.concatenate(parts)


def _draw(
    above: NDArray[np.int64], n_real: int, n_fake: int, fpr: float, size: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    places = _spacings(rng, size, n_real)
    k = (places[:, 1:-1] <= fpr).sum(axis=1)  # real pictures above the threshold
    low, high = _pick(places, k), _pick(places, k + 1)
    shares = _spacings(rng, size, n_fake)
    before, after = (
        (_pick(shares, above[i]) + _pick(shares, above[i] + 1)) / 2 for i in (k, k + 1)
    )
    before = np.where(k == 0, 0.0, before)
    share = (fpr - low) / (high - low)
    share = np.where(k == 0, np.sqrt(share), share)
    return np.asarray(before + (after - before) * share)


def _spacings(rng: np.random.Generator, size: int, n: int) -> NDArray[np.float64]:
    """Sorted uniform numbers with 0 before and 1 after them: [size, n + 2]."""
    steps = rng.exponential(size=(size, n + 1))
    sums = np.cumsum(steps, axis=1)
    return np.concatenate([np.zeros((size, 1)), sums / sums[:, -1:]], axis=1)


def _pick(values: NDArray[np.float64], column: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.take_along_axis(values, column[:, None], axis=1)[:, 0]
