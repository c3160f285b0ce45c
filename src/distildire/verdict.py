"""What is said of one picture: the fields of every row, in every format, in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from distildire.calibration import Label


@dataclass(frozen=True)
class Verdict:
    """What is known of one picture; the score fields are None where `error` is not."""

    path: str
    """As given; empty for bytes, pictures and arrays."""
    sha256: str | None
    """Of the file's bytes; of the pixels for pictures and arrays."""
    probability: float | None
    """Calibrated probability of fake, 0..1, at equal shares of real and fake."""
    logit: float | None
    """Uncalibrated, rises with fake; the probability is 0.5 at the calibration's `neutral`."""
    verdict: Label | None
    model: str
    width: int | None
    height: int | None
    error: str | None = None
    note: str | None = None
    """One sentence: why there is nothing to judge, or how much of a video was seen."""
    declares: str | None = None
    """One sentence: what the file says of its own origin; no part of the score."""
    model_sha256: str | None = None
    """Of the graph (or the weights) that scored."""
    fpr: float | None = None
    """The error budget of the verdict."""

    def to_dict(self) -> dict[str, Any]:
        """The fields in the order of the JSON lines."""
        return asdict(self)


COLUMNS = tuple(column.name for column in fields(Verdict))
"""The fields of a row, in the order of the JSON lines; every other list of them comes from here."""


def plain_types() -> dict[str, type]:
    """Of each column, what holds its value where there is one: str, float or int."""
    hints = get_type_hints(Verdict)
    found = {}
    for name in COLUMNS:
        (plain,) = [kind for kind in get_args(hints[name]) or (hints[name],) if kind != NoneType]
        found[name] = plain if isinstance(plain, type) else str  # a Literal's values are words
    return found


def not_scored(
    path: str,
    model: str,
    error: str,
    sha256: str | None = None,
    *,
    model_sha256: str | None = None,
    fpr: float | None = None,
) -> Verdict:
    """The verdict of a file that can't be scored; `error` is one sentence for its owner."""
    return Verdict(
        path, sha256, None, None, None, model, None, None, error,
        model_sha256=model_sha256, fpr=fpr,
    )  # fmt: skip
