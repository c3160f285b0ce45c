"""From a raw logit to a probability and a verdict that can be defended."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distildire.io.typed import from_tree

Label = Literal["real", "fake", "unsure"]

MIN_TO_CALIBRATE = 50
"""Images of each class under which no calibration is made."""

MIN_OF_KIND = 100
"""Images of a class under which a kind has no quantiles of its own."""

POINTS = 201
"""Quantiles kept for each class."""

SPELLED_OUT = (0.01, 0.05)
"""Budgets whose thresholds are written out for readers."""


@dataclass(frozen=True)
class Kind:
    """The held-out pictures of one kind (phones, scans, one uploader's ...).

    The quantiles of a class with fewer than `MIN_OF_KIND` pictures are empty.
    """

    n_real: int
    n_fake: int
    real_quantiles: tuple[float, ...] = ()
    fake_quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("real_quantiles", "fake_quantiles"):
            if getattr(self, name):
                _check_quantiles(name, getattr(self, name))

    @property
    def has_thresholds(self) -> bool:
        """Whether there are real pictures enough for an error budget of its own."""
        return bool(self.real_quantiles)


@dataclass(frozen=True)
class Calibration:
    """How the logits of one model's weights are read.

    `probability` = sigmoid(logit / temperature + bias) assumes equal shares of real and
    fake. `real_quantiles` and `fake_quantiles` are the logits of the held-out pictures at
    evenly spaced quantiles from 0 to 1, or the bounds of these that most draws of sources
    keep to (`evaluate.fit_calibration.calibrate`): every threshold is read from them.
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
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """By name, the kinds that real pictures were held out of."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}: give a number above 0")
        for name in ("real_quantiles", "fake_quantiles"):
            _check_quantiles(name, getattr(self, name))

    @property
    def sha256(self) -> str:
        """Of the numbers that probabilities and verdicts are read from, but for those of kinds."""
        read = (
            self.temperature, self.bias, self.n_real, self.n_fake,
            self.real_quantiles, self.fake_quantiles,
        )  # fmt: skip
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()

    def probability(self, logit: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probability of fake, 0..1, at equal shares of real and fake."""
        return sigmoid(np.clip(self.log_odds(logit), -60, 60))

    def log_odds(self, logit: ArrayLike) -> NDArray[np.float64]:
        """Calibrated logit of fake: over 0 where the probability is over one half."""
        return np.asarray(logit, float) / self.temperature + self.bias

    @property
    def neutral(self) -> float:
        """The logit at which the probability is one half."""
        return -self.bias * self.temperature

    def thresholds(self, budget: float) -> tuple[float, float]:
        """(real below, fake above), as logits, for an error budget above 0, at most 0.5.

        At most about a share `budget` of the held-out real pictures lie above the second, and
        at most about the same share of the fakes below the first; none do where that is less
        than one picture (see `remark`). Where the classes are so well apart that the two
        cross, the band between them is empty.

        Raises:
            ValueError: `budget` outside (0, 0.5].
        """
        if not 0.0 < budget <= 0.5:
            raise ValueError(f"fpr is {budget}: give a share above 0 and at most 0.5")
        fake_above = _quantile(self.real_quantiles, 1.0 - told(budget, self.n_real))
        real_below = _quantile(self.fake_quantiles, told(budget, self.n_fake))
        if real_below > fake_above:
            real_below = fake_above
        return real_below, fake_above

    def remark(self, budget: float) -> str | None:
        """That the held-out pictures are too few for an error budget; None: they are enough."""
        classes = (self.n_real, "real"), (self.n_fake, "fake")
        few = [f"{n} {label}" for n, label in classes if not told(budget, n)]
        if not few:
            return None
        return (
            f"{100 * budget:g}% is less than one of the {' and '.join(few)} pictures behind the "
            "thresholds, which can't tell it from 0"
        )

    def verdict(self, logit: float, budget: float) -> Label:
        """ "fake" above its threshold, "real" below the mirrored one, else "unsure"."""
        return label_of(logit, *self.thresholds(budget))

    def for_kind(self, name: str) -> Calibration:
        """The same probability with the thresholds of one kind, and the counts behind them.

        A class of which the kind has too few pictures keeps the thresholds of all pictures;
        `data` says so.

        Raises:
            ValueError: no such kind; the message names those known.
        """
        if name not in self.kinds:
            known = ", ".join(self.kinds) or "none: run distildire calibrate --by COLUMN"
            raise ValueError(f"no kind {name!r} in the calibration; known are {known}")
        kind = self.kinds[name]
        if not kind.has_thresholds:
            few = f"kind {name}: too few real pictures ({kind.n_real}), thresholds of all pictures"
            return replace(self, data=f"{self.data}; {few}", kinds={})
        own = {"n_real": kind.n_real, "real_quantiles": kind.real_quantiles}
        fakes = "of all pictures"
        if kind.fake_quantiles:
            own |= {"n_fake": kind.n_fake, "fake_quantiles": kind.fake_quantiles}
            fakes = "of this kind"
        data = f"{self.data}; kind {name}, fakes {fakes}"
        return replace(self, data=data, kinds={}, **own)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the thresholds at 1% and 5% spelled out."""
        tree = {**asdict(self), "thresholds": self._spelled_out()}
        for name, kind in self.kinds.items():
            if kind.has_thresholds:
                tree["kinds"][name]["thresholds"] = self.for_kind(name)._spelled_out()
        return tree

    def _spelled_out(self) -> dict[str, dict[str, float]]:
        names = ("real_below", "fake_above")
        return {str(b): dict(zip(names, self.thresholds(b), strict=True)) for b in SPELLED_OUT}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Calibration:
        """Read back what `to_dict` gave.

        Raises:
            ValueError: what it never gave.
        """
        made = from_tree(cls, tree, "calibration")
        kinds = {
            name: from_tree(Kind, kind, f"calibration.kinds.{name}")
            for name, kind in made.kinds.items()
        }
        return replace(made, kinds=kinds)


def label_of(logit: float, real_below: float, fake_above: float) -> Label:
    """The verdict of a logit between or beyond two thresholds."""
    if logit > fake_above:
        return "fake"
    return "real" if logit < real_below else "unsure"


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-z)), 0..1; exp overflows, with a warning, for z under -709."""
    return np.asarray(1.0 / (1.0 + np.exp(-z)))


def told(budget: float, count: int) -> float:
    """The budget, or 0 where it is less than one of `count` pictures."""
    return budget if budget * count > 1 - 1e-9 else 0.0


def _quantile(quantiles: Sequence[float], share: float) -> float:
    return float(np.interp(share, np.linspace(0.0, 1.0, len(quantiles)), quantiles))


def _check_quantiles(name: str, quantiles: Sequence[float]) -> None:
    if len(quantiles) < 2 or any(b < a for a, b in itertools.pairwise(quantiles)):
        raise ValueError(f"{name} are no quantiles: two or more rising numbers are needed")
