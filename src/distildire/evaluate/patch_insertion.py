"""Does the heat lie where the generated pixels are?

A generated patch is put into a photograph; the hottest place is then asked to lie in it (the
pointing game of Zhang et al. 2016). A patch of another photograph is the control: a detector
that only sees seams finds that one as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from distildire.explain.heatmap import Heat
from distildire.io.pictures import RGB
from distildire.io.preprocessing import equalize, jpeg

Box = tuple[int, int, int, int]
"""(top, left, height, width)."""

POOR_MARGIN = 0.15
"""A hit rate that doesn't beat both chance and the control by this much is called poor."""

GOOD_RATE = 0.5
"""A heat map that misses more often than it hits is called poor as well."""


HeatOf = Callable[[RGB], Heat]
"""Of a decoded picture RGB [H, W, 3]: heat [H, W] in logits."""


@dataclass(frozen=True)
class PatchInsertion:
    """How well the heat finds an inserted patch; all shares 0..1."""

    n: int
    hit_rate: float
    """The hottest place lies in the generated patch."""
    control_hit_rate: float
    """The same for a patch of another photograph."""
    chance: float
    """Mean share of the picture that the patch covers."""
    inside_heat: float
    """Mean heat (logits) in the generated patch, less that outside."""
    control_inside_heat: float

    @property
    def poor(self) -> bool:
        """Whether the heat says little about the place."""
        least = max(self.chance, self.control_hit_rate) + POOR_MARGIN
        return self.hit_rate < max(least, GOOD_RATE)

    def sentence(self) -> str:
        """For the output beside a heat map."""
        figures = (
            f"the hottest place lay in an inserted generated patch {self.hit_rate:.0%} of the "
            f"time (a patch of a photograph {self.control_hit_rate:.0%}, chance {self.chance:.0%}, "
            f"{self.n} tries)"
        )
        beside = self.hit_rate <= self.control_hit_rate
        if beside or self.hit_rate < self.chance + POOR_MARGIN:
            return f"The heat map is no guide to a place: {figures}."
        if self.poor:
            return f"The heat map is a weak guide to a place: {figures}."
        return f"The heat map can point to a place: {figures}."

    def to_dict(self) -> dict[str, object]:
        """As JSON, with the sentence."""
        return {**asdict(self), "poor": self.poor, "sentence": self.sentence()}


def insert_patch(photo: RGB, patch: RGB, top: int, left: int) -> RGB:
    """A copy of the photograph with the patch at (top, left)."""
    height, width = patch.shape[:2]
    if top < 0 or left < 0 or top + height > photo.shape[0] or left + width > photo.shape[1]:
        raise ValueError(f"a patch of {height} x {width} at {top}, {left} is outside {photo.shape}")
    new = photo.copy()
    new[top : top + height, left : left + width] = patch
    return new


def points_inside(heat: Heat, box: Box) -> bool:
    """Whether the hottest place of [H, W] lies in the box."""
    y, x = np.unravel_index(int(np.argmax(heat)), heat.shape)
    top, left, height, width = box
    return bool(top <= y < top + height and left <= x < left + width)


def inside_heat(heat: Heat, box: Box) -> float:
    """Mean heat in the box less the mean outside."""
    top, left, height, width = box
    inside = np.zeros(heat.shape, bool)
    inside[top : top + height, left : left + width] = True
    return float(heat[inside].mean() - heat[~inside].mean())


def patch_insertion(
    heat_of: HeatOf,
    photos: Sequence[RGB],
    generated: Sequence[RGB],
    *,
    share: float = 0.5,
    seed: int = 0,
) -> PatchInsertion:
    """Measure on every photograph, with a patch of a random generated picture and a control.

    All pictures are equalised first, patches keep their pixels (no rescaling), and the
    composite gets one more JPEG pass, so that no compression boundary gives the patch away.

    Args:
        heat_of: gives the heat of a picture.
        photos: at least two camera pictures.
        generated: generated pictures.
        share: side of the patch as a share of the photograph's (or, if smaller, the
            generated picture's) shorter side, 0..1.
        seed: of the choice of patches and places.

    Raises:
        ValueError: fewer than two photographs, or no generated picture.
    """
    if len(photos) < 2 or not len(generated):
        raise ValueError(
            f"{len(photos)} photographs and {len(generated)} generated pictures: at least two "
            "and one are needed"
        )
    rng = np.random.default_rng(seed)
    hits: dict[str, list[bool]] = {"fake": [], "control": []}
    heats: dict[str, list[float]] = {"fake": [], "control": []}
    covered = []
    for i, photo in enumerate(photos):
        base = equalize(photo)
        other = equalize(photos[(i + int(rng.integers(1, len(photos)))) % len(photos)])
        fake = equalize(generated[int(rng.integers(len(generated)))])
        side = max(16, round(share * min(*base.shape[:2], *other.shape[:2], *fake.shape[:2])))
        top, left = (int(rng.integers(0, n - side + 1)) for n in base.shape[:2])
        covered.append(side * side / (base.shape[0] * base.shape[1]))
        for name, donor in (("fake", fake), ("control", other)):
            y, x = (int(rng.integers(0, n - side + 1)) for n in donor.shape[:2])
            patch = donor[y : y + side, x : x + side]
            heat = heat_of(jpeg(insert_patch(base, patch, top, left), 90))
            hits[name].append(points_inside(heat, (top, left, side, side)))
            heats[name].append(inside_heat(heat, (top, left, side, side)))
    return PatchInsertion(
        n=len(photos),
        hit_rate=float(np.mean(hits["fake"])),
        control_hit_rate=float(np.mean(hits["control"])),
        chance=float(np.mean(covered)),
        inside_heat=float(np.mean(heats["fake"])),
        control_inside_heat=float(np.mean(heats["control"])),
    )
