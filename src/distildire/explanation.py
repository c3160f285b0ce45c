"""Why a score: where in the picture it comes from, what it rests on, whether it lasts.

One place where the page, the API and the record get these, each as plain JSON values.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distildire.detector import Detector
from distildire.embedding import png
from distildire.images import RGB, limit_short_side, reflect_to

_OVERLAY = 384
"""Longest side of the heat overlay in pixels; a viewer stretches it over the picture."""

_WARM, _COOL = (214, 69, 40), (38, 110, 168)
"""Colours of evidence for and against generation, apart for red-green colour blindness."""

_NOISE_GAIN = 48.0
"""Grey levels for one unit of eps0: its spread is about 1, so that 2.6 units saturate."""


def heat_of(detector: Detector, rgb: RGB) -> dict[str, Any] | None:
    """Where the score comes from; None where the model has no activation map.

    `values` are the logits of a grid of places, top to bottom; `overlay` is a picture with
    alpha to lay over the original: warm where a place speaks for generated, cool against.
    """
    try:
        from distildire.heatmap import heatmap
    except ImportError:
        return None
    values = heatmap(detector, rgb)
    if values is None:
        return None
    values = np.asarray(values, dtype=np.float64)
    height, width = rgb.shape[:2]
    return {
        "values": np.round(values, 3).tolist(),
        "overlay": png(overlay(values, width, height)),
    }


def overlay(values: NDArray[np.float64], width: int, height: int) -> NDArray[np.uint8]:
    """Logits [h, w] -> RGBA uint8 in the proportions of a picture of `width` x `height`.

    A logit of 4 (98% at unit temperature) is as strong as colour gets.
    """
    scale = min(1.0, _OVERLAY / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    strength = np.clip(values / 4.0, -1.0, 1.0).astype(np.float32)
    smooth = np.asarray(Image.fromarray(strength).resize(size, Image.Resampling.BICUBIC))
    rgba = np.empty((*smooth.shape, 4), np.uint8)
    rgba[..., :3] = np.where(smooth[..., None] > 0, _WARM, _COOL)
    rgba[..., 3] = np.rint(255 * np.clip(np.abs(smooth), 0, 1))
    return rgba


def noise_of(detector: Detector, rgb: RGB) -> str | None:
    """The first-step noise eps0 as a picture (grey is zero), as a data URI.

    None where the graph does not give `eps0`. The picture is taken as scoring sees it, its
    shorter side at most the preprocessing's, and tile by tile of the crop's size.
    """
    session = detector._session
    if "eps0" not in {output.name for output in session.get_outputs()}:
        return None
    side = detector.bundle.preprocessing.crop
    rgb = limit_short_side(rgb, detector.bundle.preprocessing.short_side)
    height, width = rgb.shape[:2]
    padded = reflect_to(rgb, side)
    noise = np.empty(padded.shape, np.float32)
    for top in _starts(padded.shape[0], side):
        for left in _starts(padded.shape[1], side):
            place = np.s_[top : top + side, left : left + side]
            eps0 = session.run(["eps0"], {"rgb": padded[place][None]})[0][0]
            noise[place] = eps0.transpose(1, 2, 0)
    levels = np.clip(127.5 + _NOISE_GAIN * noise[:height, :width], 0, 255)
    return png(np.rint(levels).astype(np.uint8))


def stability_of(detector: Detector, rgb: RGB, fpr: float) -> dict[str, Any] | None:
    """Whether the verdict survives re-encoding and resizing; None where it can't be tried.

    `scores` has the calibrated probability of each altered copy by its name.
    """
    try:
        from distildire.stability import stability
    except ImportError:
        return None
    return dataclasses.asdict(stability(detector, rgb, fpr=fpr))


def _starts(length: int, side: int) -> list[int]:
    """Offsets of tiles that cover `length`, the last one flush with the end."""
    return [*range(0, length - side, side), length - side]
