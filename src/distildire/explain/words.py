"""A verdict in words that claim no more than was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distildire.calibration import Calibration, Label, told
from distildire.io.preprocessing import Piece

HEADLINES = {
    "fake": "Likely AI-generated",
    "real": "No sign of AI generation found",
    "unsure": "Unsure: the score supports neither verdict",
}
UNSTABLE = "Unsure: the verdict doesn't survive re-encoding and resizing"

WHOLE = 0.995
"""Share of a picture from which on it is the whole one."""

LIMITS = (
    "The score speaks of how the pixels were made, not of whether what they show is true.",
    "It is a statistical sign, not proof, and is to be weighed with the source, the context "
    "and other methods.",
    "The probability assumes that real and generated pictures are equally common where this "
    "one comes from; where generated ones are rarer, it is lower than stated.",
    "Generators, cameras and editing programs that were absent from the calibration pictures "
    "can be judged wrongly more often than the stated budget.",
    "Resizing, screenshots, strong compression and filters weaken the traces; a picture "
    "altered to deceive the detector can do so.",
    "A real picture with a generated part, or a generated one pasted together, may be judged "
    "by either part.",
)


def which_part(pieces: Sequence[Piece], share: float) -> str:
    """What part of a picture the score comes from."""
    if share >= WHOLE:
        return "the whole picture"
    part = f"{100 * share:.0f}% of the picture"
    if len(pieces) > 1:
        return f"{part}, in {len(pieces)} pieces"
    ((left, top, width, height),) = pieces
    return f"{part}, its middle: {width} × {height} pixels from ({left}, {top})"


def final_verdict(result: Mapping[str, Any], stability: Mapping[str, Any] | None) -> Label:
    """The verdict of a result after its stability check, where that was made."""
    verdict: Label = (stability or result)["verdict"]
    return verdict


def headline(result: Mapping[str, Any], stability: Mapping[str, Any] | None) -> str:
    """A result in a few words, no surer than its stability check."""
    verdict = final_verdict(result, stability)
    return HEADLINES[verdict] if verdict == result["verdict"] else UNSTABLE


def percent(share: float, digits: int = 0) -> str:
    """A share 0..1 in percent; never 0% or 100%, which no calibration can know."""
    step = 10.0**-digits
    if 100 * share < step:
        return f"under {step:g}%"
    return f"over {100 - step:g}%" if 100 * share > 100 - step else f"{100 * share:.{digits}f}%"


def paragraph(
    result: Mapping[str, Any],
    stability: Mapping[str, Any] | None,
    c2pa: Mapping[str, Any],
    calibration: Calibration | None,
) -> str:
    """Two to six sentences on one result, for readers who know no statistics."""
    probability, fpr = percent(result["probability"]), result["fpr"]
    budget = f"{100 * fpr:g}%"
    n_real, n_fake = (calibration.n_real, calibration.n_fake) if calibration else (0, 0)
    as_high = f"at most {budget} score" if told(fpr, n_real) else "none scores"
    as_low = f"at most {budget} score" if told(fpr, n_fake) else "none scores"
    sentences = {
        "fake": [
            "The detector rates this picture as likely AI-generated (calibrated score "
            f"{probability}).",
            f"Of the {n_real} camera pictures that it was calibrated on, {as_high} as high.",
        ],
        "real": [
            "The detector finds no sign that this picture was generated (calibrated score for "
            f"generated: {probability}).",
            f"Of the {n_fake} generated pictures that it was calibrated on, {as_low} as low; "
            "generators that it has never seen can pass unnoticed.",
        ],
        "unsure": [
            f"The calibrated score for generated is {probability}, between the two thresholds.",
            f"At an error budget of {budget} it supports neither verdict, and should be used for "
            "neither.",
        ],
    }[result["verdict"]]
    if remark := calibration and calibration.remark(fpr):
        sentences.append(f"{remark}.")
    if note := result.get("note"):
        sentences = [
            f"{note[0].upper()}{note[1:]}.",
            "The score, whatever it is, supports neither verdict.",
        ]
    seen = result.get("looked_at")
    if seen is not None and seen["share"] < WHOLE:
        sentences.append(f"The score comes from {seen['words']}; of the rest it says nothing.")
    if stability is not None:
        sentences.append(
            "The verdict stays the same when the picture is re-encoded and resized."
            if stability["stable"]
            else "The verdict changes when the picture is re-encoded or resized: it is too weak to "
            "be used."
        )
    if c2pa.get("kind") in {"generated", "edited"} and c2pa["status"] in {"Valid", "Trusted"}:
        sentences.append(
            f"Apart from the score, the file carries a signed statement (C2PA) that {c2pa['says']}."
        )
    return " ".join(sentences)
