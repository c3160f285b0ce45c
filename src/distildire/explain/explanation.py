"""Why a score: where in the picture it comes from, what it rests on, whether it lasts.

One place where the page, the API and the record get these, each as plain JSON values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distildire.detector import Detector
from distildire.explain import words
from distildire.explain.heatmap import (
    COOL,
    VEIL,
    WARM,
    heat_of,
    judged_places,
    limit_of,
    noise_view,
    over_tiles,
    tile_corners,
)
from distildire.explain.stability import stability
from distildire.io.data_uri import png
from distildire.io.pictures import RGB
from distildire.io.preprocessing import Preprocessing, reflect_to

_OVERLAY = 384
"""Longest side of the heat overlay in pixels; a viewer stretches it over the picture."""

_GRID = 16
"""Places on the longer side of the grid of heat values."""


def looked_at(preprocessing: Preprocessing, rgb: RGB) -> dict[str, Any]:
    """What the score comes from: `boxes` in the picture's pixels, their `share` of it, `words`."""
    height, width = rgb.shape[:2]
    pieces = [
        piece._replace(
            width=min(piece.width, width - piece.left), height=min(piece.height, height - piece.top)
        )
        for piece in preprocessing.pieces(rgb)
    ]
    share = round(float(judged_places(preprocessing, rgb).mean()), 4)
    return {
        "boxes": [piece._asdict() for piece in pieces],
        "share": share,
        "words": words.which_part(pieces, share),
    }


def heat_summary(detector: Detector, rgb: RGB) -> dict[str, Any] | None:
    """Where the score comes from; None where the model has no activation map.

    `values` are the logits of a grid of places, top to bottom; `overlay` is a picture with
    alpha to lay over the original, warm where a place speaks for generated, cool against,
    clear at even odds, in full colour `limit` from there (in logits), veiled in grey where the
    score doesn't look; `note` says how far it can be trusted.
    """
    if "cam" not in detector.graph_outputs:
        return None
    heat = heat_of(detector, rgb)
    judged = judged_places(detector.bundle.preprocessing, rgb)
    drawn = heat - detector.bundle.neutral
    limit = limit_of(drawn[judged])
    shrunk = _shrunk(judged.astype(np.float32), _OVERLAY) >= 0.5
    return {
        "values": np.round(_shrunk(heat, _GRID), 3).tolist(),
        "limit": round(limit, 3),
        "overlay": png(heat_colours(_shrunk(drawn, _OVERLAY), limit, shrunk)),
        "note": detector.bundle.heatmap_note,
    }


def heat_colours(
    heat: NDArray[np.float32], limit: float, judged: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Heat [h, w] -> RGBA uint8 [h, w, 4]: opaque at `limit`, clear at 0; veiled if unjudged."""
    strength = np.clip(heat / limit, -1.0, 1.0)
    rgba = np.empty((*heat.shape, 4), np.uint8)
    rgba[..., :3] = np.where(strength[..., None] > 0, WARM, COOL)
    rgba[..., 3] = np.rint(255 * np.abs(strength))
    if judged is not None:
        rgba[~judged] = (*VEIL, 190)
    return rgba


def noise_of(detector: Detector, rgb: RGB) -> str | None:
    """The first-step noise eps0 as a picture (grey is zero), as a data URI.

    None where the graph does not give `eps0`. The picture is taken as scoring sees it, its
    shorter side at most the preprocessing's, and tile by tile of the crop's size.
    """
    if "eps0" not in detector.graph_outputs:
        return None
    side = detector.bundle.preprocessing.crop
    rgb = detector.bundle.preprocessing.scaled(rgb)
    height, width = rgb.shape[:2]
    padded = reflect_to(rgb, side)
    noise = np.empty(padded.shape, np.float32)
    corners = tile_corners(padded.shape[0], padded.shape[1], side, side)
    eps0 = over_tiles(lambda tiles: detector.run_graph("eps0", tiles), padded, corners, side)
    for (top, left), tile in zip(corners, eps0, strict=True):
        noise[top : top + side, left : left + side] = tile.transpose(1, 2, 0)
    return png(noise_view(noise[:height, :width]))


def stability_of(
    detector: Detector, rgb: RGB, fpr: float, logit: float | None = None
) -> dict[str, Any]:
    """Whether the verdict survives re-encoding and resizing.

    `scores` has the calibrated probability of every altered copy by its name, "as it is"
    first; `verdict` is "unsure" where they disagree. `logit`: of the picture as it is, where it
    is known.
    """
    checked = stability(detector, rgb, fpr=fpr, logit=logit)
    return {
        "stable": checked.stable,
        "verdict": checked.verdict,
        "scores": {name: round(p, 6) for name, p in checked.probabilities.items()},
        "verdicts": dict(checked.verdicts),
    }


def _shrunk(values: NDArray[np.float32], longest: int) -> NDArray[np.float32]:
    """Means over boxes, at most `longest` on the longer side."""
    height, width = values.shape
    scale = min(1.0, longest / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BOX))
