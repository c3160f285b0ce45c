"""Does a verdict survive what happens to every picture that is passed on?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from distildire.calibration import Label
from distildire.explain.reencode import STABILITY, Reencode
from distildire.io.pictures import RGB

LONGEST = 50
"""Times as long as wide that a picture is altered whole: a smaller copy of a longer one can be too
narrow to judge."""


class Judge(Protocol):
    """What `stability` asks of a detector; `Detector` is one."""

    def logit(self, rgb: RGB) -> float:
        """Uncalibrated score of a decoded picture."""
        ...

    def verdict_of(self, logit: float, fpr: float | None = None) -> tuple[float, Label]:
        """(calibrated probability of fake, verdict) of a logit."""
        ...


@dataclass(frozen=True)
class Stability:
    """The scores of one picture as it is and re-encoded."""

    logits: dict[str, float]
    """By re-encoding; "as it is" comes first."""
    probabilities: dict[str, float]
    """Calibrated, of fake, 0..1, in the same order."""
    verdicts: dict[str, Label]
    stable: bool
    """Whether no re-encoding changed the verdict."""
    verdict: Label
    """The first verdict if it is stable, else "unsure"."""
    probability: float
    """Of the picture as it is."""

    @property
    def flips(self) -> list[str]:
        """The re-encodings whose verdict is not that of the picture as it is."""
        first = self.verdicts["as it is"]
        return [name for name, verdict in self.verdicts.items() if verdict != first]

    def to_dict(self) -> dict[str, Any]:
        """As JSON, with the names of the flips."""
        return {**asdict(self), "flips": self.flips}


def stability(
    detector: Judge,
    rgb: RGB,
    *,
    fpr: float | None = None,
    reencodings: Mapping[str, Reencode] = STABILITY,
    logit: float | None = None,
) -> Stability:
    """Score uint8 RGB [H, W, 3] as it is and under every re-encoding.

    Of a picture over `LONGEST` times as long as it is wide, the middle is re-encoded.

    Args:
        detector: gives logits and verdicts.
        rgb: the decoded picture.
        fpr: error budget of the verdicts; the detector's own by default.
        reencodings: what the verdict must survive.
        logit: of the picture as it is, where it is known.
    """
    logits = {"as it is": detector.logit(rgb) if logit is None else logit}
    rgb = _middle(rgb)
    logits |= {name: detector.logit(change(rgb)) for name, change in reencodings.items()}
    return judge_scores(detector, logits, fpr=fpr)


def _middle(rgb: RGB) -> RGB:
    height, width = rgb.shape[:2]
    longest = LONGEST * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return rgb[top : top + longest, left : left + longest]


def judge_scores(
    detector: Judge, logits: dict[str, float], *, fpr: float | None = None
) -> Stability:
    """The same from logits that are already known; the key "as it is" must be there."""
    judged = {name: detector.verdict_of(logit, fpr) for name, logit in logits.items()}
    verdicts = {name: verdict for name, (_, verdict) in judged.items()}
    first = verdicts["as it is"]
    stable = all(verdict == first for verdict in verdicts.values())
    return Stability(
        logits=logits,
        probabilities={name: probability for name, (probability, _) in judged.items()},
        verdicts=verdicts,
        stable=stable,
        verdict=first if stable else "unsure",
        probability=judged["as it is"][0],
    )
