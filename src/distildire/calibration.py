"""From a raw logit to a probability and a verdict that can be defended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Label = Literal["real", "fake", "unsure"]

MIN_IMAGES = 50
"""Images of each class under which no calibration is made."""


@dataclass(frozen=True)
class Calibration:
    """How the logits of one model's weights are read.

    `probability` = sigmoid(logit / temperature + bias) assumes equal shares of real and
    fake. `real_quantiles` and `fake_quantiles` are the logits of the held-out pictures at
    evenly spaced quantiles from 0 to 1: every threshold is read from them.
    """

    weights_sha256: str
    """The graph that the logits came from; another graph is refused."""
    temperature: float
    bias: float
    n_real: int
    n_fake: int
    real_quantiles: tuple[float, ...]
    fake_quantiles: tuple[float, ...]
    data: str = ""
    """What the held-out pictures were, in words."""

    def probability(self, logit: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probability of fake, 0..1, at equal shares of real and fake."""
        z = np.clip(np.asarray(logit, float) / self.temperature + self.bias, -60, 60)
        return np.asarray(1.0 / (1.0 + np.exp(-z)))

    def thresholds(self, budget: float) -> tuple[float, float]:
        """(real below, fake above), as logits, for an error budget in 0..0.5.

        At most a share `budget` of the held-out real pictures lie above the second, and at
        most the same share of the fakes below the first. Where the classes are so well
        apart that the two cross, the band between them is empty.

        Raises:
            ValueError: `budget` outside (0, 0.5].
        """
        if not 0.0 < budget <= 0.5:
            raise ValueError(f"fpr is {budget}: give a share above 0 and at most 0.5")
        grid = np.linspace(0.0, 1.0, len(self.real_quantiles))
        fake_above = float(np.interp(1.0 - budget, grid, self.real_quantiles))
        real_below = float(np.interp(budget, grid, self.fake_quantiles))
        if real_below > fake_above:
            real_below = fake_above
        return real_below, fake_above

    def verdict(self, logit: float, budget: float) -> Label:
        """ "fake" above its threshold, "real" below the mirrored one, else "unsure"."""
        real_below, fake_above = self.thresholds(budget)
        if logit > fake_above:
            return "fake"
        return "real" if logit < real_below else "unsure"

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the thresholds at 1% and 5% spelled out."""
        named = {
            str(b): dict(zip(("real_below", "fake_above"), self.thresholds(b), strict=True))
            for b in (0.01, 0.05)
        }
        return {**asdict(self), "thresholds": named}

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Calibration:
        """Read back what `to_dict` gave."""
        fields = {k: v for k, v in tree.items() if k in cls.__dataclass_fields__}
        for key in ("real_quantiles", "fake_quantiles"):
            fields[key] = tuple(fields[key])
        return cls(**fields)


def calibrate(
    logits: ArrayLike, fake: ArrayLike, weights_sha256: str, *, data: str = "", points: int = 201
) -> Calibration:
    """Fit temperature and bias (Platt 1999, classes weighted alike) and keep the quantiles.

    Args:
        logits: [N], from pictures that were neither trained on nor chosen on.
        fake: [N] booleans.
        weights_sha256: the graph that gave the logits.
        data: what the pictures were, in words.
        points: quantiles kept for each class.

    Raises:
        ValueError: fewer than `MIN_IMAGES` of a class, or scores that are not finite.
    """
    from sklearn.linear_model import LogisticRegression

    logits, fake = np.asarray(logits, float), np.asarray(fake, bool)
    if not np.isfinite(logits).all():
        raise ValueError(f"{int((~np.isfinite(logits)).sum())} scores are not finite numbers")
    n_real, n_fake = int((~fake).sum()), int(fake.sum())
    if min(n_real, n_fake) < MIN_IMAGES:
        raise ValueError(
            f"{n_real} real and {n_fake} fake pictures: at least {MIN_IMAGES} of each are "
            "needed to calibrate"
        )
    fit = LogisticRegression(C=1e6, class_weight="balanced").fit(logits[:, None], fake)
    slope = float(fit.coef_[0, 0])
    if slope <= 0:
        raise ValueError("the scores rise with the real class: are the labels swapped?")
    grid = np.linspace(0.0, 1.0, points)
    return Calibration(
        weights_sha256=weights_sha256,
        temperature=1.0 / slope,
        bias=float(fit.intercept_[0]),
        n_real=n_real,
        n_fake=n_fake,
        real_quantiles=tuple(np.round(np.quantile(logits[~fake], grid), 4).tolist()),
        fake_quantiles=tuple(np.round(np.quantile(logits[fake], grid), 4).tolist()),
        data=data,
    )
