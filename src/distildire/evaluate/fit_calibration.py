"""A calibration fitted to the scores of pictures that were set aside."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distildire.calibration import MIN_OF_KIND, MIN_TO_CALIBRATE, POINTS, Calibration, Kind
from distildire.evaluate.bootstrap import MIN_CLUSTERS

DRAWS = 500
"""Of whole sources, for cautious quantiles."""


def calibrate(
    logits: ArrayLike,
    fake: ArrayLike,
    weights_sha256: str,
    *,
    kinds: ArrayLike | None = None,
    sources: ArrayLike | None = None,
    confidence: float = 0.5,
) -> Calibration:
    """Fit temperature and bias (Platt 1999, classes weighted alike) and keep the quantiles.

    Pictures of a source are alike, and those that will be judged come from others. With
    `confidence` over 0.5 the quantiles are those that this share of draws of whole sources
    stay within (bootstrap by clusters), so that thresholds hold on most choices of sources.
    Of fewer than `MIN_CLUSTERS` sources, single pictures are drawn: draws of one source are all
    alike.

    Args:
        logits: [N], from pictures that were neither trained on nor chosen on.
        fake: [N] booleans.
        weights_sha256: the graph that gave the logits.
        kinds: [N] names, empty where a picture is of none.
        sources: [N] names; none: every picture is a source.
        confidence: 0.5 (nothing is drawn) to 1.

    Raises:
        ValueError: fewer than `MIN_TO_CALIBRATE` of a class, or scores that are not finite.
    """
    from sklearn.linear_model import LogisticRegression

    logits, fake = np.asarray(logits, float), np.asarray(fake, bool)
    if not np.isfinite(logits).all():
        raise ValueError(f"{int((~np.isfinite(logits)).sum())} scores are not finite numbers")
    n_real, n_fake = int((~fake).sum()), int(fake.sum())
    if min(n_real, n_fake) < MIN_TO_CALIBRATE:
        raise ValueError(
            f"{n_real} real and {n_fake} fake pictures: at least {MIN_TO_CALIBRATE} of each are "
            "needed to calibrate"
        )
    fit = LogisticRegression(C=1e6, class_weight="balanced").fit(logits[:, None], fake)
    slope = float(fit.coef_[0, 0])
    if slope <= 0:
        raise ValueError("the scores rise with the real class: are the labels swapped?")
    names = np.arange(len(logits)) if sources is None else np.asarray(sources, str)
    _, of = np.unique(names, return_inverse=True)
    return Calibration(
        weights_sha256=weights_sha256,
        temperature=1.0 / slope,
        bias=float(fit.intercept_[0]),
        n_real=n_real,
        n_fake=n_fake,
        real_quantiles=_cautious(logits[~fake], of[~fake], confidence),
        fake_quantiles=_cautious(logits[fake], of[fake], 1.0 - confidence),
        kinds={} if kinds is None else _kinds(logits, fake, of, np.asarray(kinds, str), confidence),
    )


def _cautious(
    logits: NDArray[np.float64], of: NDArray[np.int64], share: float
) -> tuple[float, ...]:
    """The quantiles that a share of the draws of whole sources stays under."""
    if share == 0.5:
        return _quantiles(logits)
    if len(np.unique(of)) < MIN_CLUSTERS:
        of = np.arange(len(logits))
    rng, parts = np.random.default_rng(0), [logits[of == n] for n in np.unique(of)]
    drawn = [
        _quantiles(np.concatenate([parts[n] for n in rng.integers(0, len(parts), len(parts))]))
        for _ in range(DRAWS)
    ]
    return tuple(np.round(np.quantile(drawn, share, axis=0), 4).tolist())


def _kinds(
    logits: NDArray[np.float64], fake: NDArray[np.bool_], of: NDArray[np.int64],
    kinds: NDArray[np.str_], confidence: float,
) -> dict[str, Kind]:  # fmt: skip
    """By name; a budget speaks of real pictures, so that a kind without any is none."""
    found = {}
    for name in sorted(set(kinds[~fake].tolist()) - {""}):
        real, fakes = (kinds == name) & ~fake, (kinds == name) & fake
        both = int(real.sum()), int(fakes.sum())
        enough = both[0] >= MIN_OF_KIND, min(both) >= MIN_OF_KIND
        found[name] = Kind(
            n_real=both[0],
            n_fake=both[1],
            real_quantiles=_cautious(logits[real], of[real], confidence) if enough[0] else (),
            fake_quantiles=_cautious(logits[fakes], of[fakes], 1 - confidence) if enough[1] else (),
        )
    return found


def _quantiles(logits: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.round(np.quantile(logits, np.linspace(0.0, 1.0, POINTS)), 4).tolist())
