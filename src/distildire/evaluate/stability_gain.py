"""What the stability check is worth: wrong verdicts caught against right ones given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from distildire.explain.stability import Judge, judge_scores


@dataclass(frozen=True)
class StabilityGain:
    """Shares (0..1) of verdicts that the check turned into "unsure"; nan without any."""

    n_right: int
    """Right and definite (real or fake) before the check."""
    n_wrong: int
    wrong_caught: float
    right_lost: float


def stability_gain(
    detector: Judge,
    logits: Mapping[str, Sequence[float]],
    fake: ArrayLike,
    *,
    fpr: float | None = None,
    allowed_flips: int = 0,
) -> StabilityGain:
    """Measure the check on logits [N] by re-encoding ("as it is" among them).

    The `logits` of `robustness(..., reencodings={"as it is": ..., **STABILITY})` fit.
    """
    fake = np.asarray(fake, bool)
    right: list[bool] = []
    wrong: list[bool] = []
    for i, is_fake in enumerate(fake.tolist()):
        scores = {name: float(values[i]) for name, values in logits.items()}
        result = judge_scores(detector, scores, fpr=fpr, allowed_flips=allowed_flips)
        first = result.verdicts["as it is"]
        if first != "unsure":
            (right if (first == "fake") == is_fake else wrong).append(result.verdict == "unsure")

    def share(flags: list[bool]) -> float:
        return float(np.mean(flags)) if flags else float("nan")

    return StabilityGain(len(right), len(wrong), share(wrong), share(right))
