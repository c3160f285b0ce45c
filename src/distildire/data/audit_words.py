"""What an audit found, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def shares(values: pd.Series) -> dict[str, float]:
    """The share 0..1 of each value, the commonest first."""
    counted = values.value_counts(normalize=True)
    return {str(name): round(float(share), 4) for name, share in counted.items()}


def difference(about: pd.DataFrame, kind: str) -> str:
    """How the classes differ in one kind of facts."""
    return "; ".join(
        f"{label}: {_described(about[about['label'] == label], kind)}" for label in ("real", "fake")
    )


def _described(part: pd.DataFrame, kind: str) -> str:
    """One class in one kind of facts."""
    if kind == "format":
        formats = list(shares(part["format"]).items())
        return ", ".join(f"{share:.0%} {name}" for name, share in formats[:3])
    if kind == "size":
        square = (part["width"] == part["height"]).mean()
        return (
            f"median {part['width'].median():.0f} x {part['height'].median():.0f} pixels, "
            f"{square:.0%} square"
        )
    if kind == "quality":
        quality, chroma = part["quality"].median(), shares(part["subsampling"])
        known = f"median JPEG quality {quality:.0f}, " if quality == quality else ""
        first = next((f"{share:.0%} {name}, " for name, share in chroma.items() if name), "")
        return f"{known}{first}{part['bytes_a_pixel'].median():.2f} bytes per pixel"
    return ", ".join(
        f"{part[name].mean():.0%} {name.upper() if len(name) < 5 else name}"
        for name in ("exif", "icc", "xmp", "c2pa", "text")
    )


def sentence(
    total: float | None, limit: float, chance: float, kinds: Sequence[str], counts: tuple[int, int]
) -> str:
    """The verdict on a set whose classes are told with the AUC `total`; `kinds` leak alone.

    `counts` are those of real and fake files.
    """
    if total is None and not min(counts):
        return "Only one class is present, so that no leak can be measured."
    if total is None:
        return (
            f"Too few pictures: no leak can be measured of {counts[0]} real and {counts[1]} fake."
        )
    named = ", ".join(kinds)
    figures = f"told with AUC {total:.2f} (limit {limit:.2f}"
    if total > max(limit, chance):
        by = f": {named}" if named else ""
        return f"The class leaks: without looking at the pixels it is {figures}){by}."
    few = f"; chance alone gives up to {min(1.0, chance):.2f} with so few pictures" * (
        chance > limit
    )
    tail = f", but look at: {named}" if named else ""
    if total > limit:
        return (
            f"No leak can be shown: without looking at the pixels the class is {figures}), which "
            f"chance can do with so few pictures{tail}."
        )
    return (
        f"No leak over the limit: without looking at the pixels the class is {figures}, chance "
        f"0.50{few}){tail}."
    )
