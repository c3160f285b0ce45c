"""Figures over a few seeds: mean, spread, and an interval that knows how few they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OverSeeds:
    """One figure of one arm over its seeds; None where too few allow it."""

    n: int
    mean: float | None
    sd: float | None
    """Sample standard deviation (n - 1)."""
    interval: tuple[float, float] | None
    """95%, Student's t with n - 1 degrees of freedom."""

    def text(self) -> str:
        """For a table: mean, spread and interval."""
        if self.mean is None:
            return "–"
        if self.sd is None or self.interval is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {self.sd:.3f} [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def over_seeds(values: Sequence[float]) -> OverSeeds:
    """Summary of one value per seed; values that are nan are left out.

    The interval speaks of other seeds on the same pictures, not of other pictures.
    """
    from scipy.stats import t

    known = np.array([v for v in values if np.isfinite(v)], float)
    if not len(known):
        return OverSeeds(0, None, None, None)
    mean = float(known.mean())
    if len(known) < 2:
        return OverSeeds(1, mean, None, None)
    sd = float(known.std(ddof=1))
    reach = float(t.ppf(0.975, len(known) - 1)) * sd / np.sqrt(len(known))
    return OverSeeds(len(known), mean, sd, (mean - float(reach), mean + float(reach)))


def paired(values: dict[int, float], reference: dict[int, float]) -> OverSeeds:
    """The difference to a reference arm, seed by seed: equal seeds see equal pictures."""
    both = sorted(set(values) & set(reference))
    return over_seeds([values[seed] - reference[seed] for seed in both])
