"""Where in the picture the score comes from, and what the noise looks like.

A detector whose head is one linear unit on a pooled map has an exact class activation map
(Zhou et al. 2016): the unit applied at every place, whose mean plus the bias is the logit.
A large picture is covered by overlapping crops, whose maps are laid together; where the score
itself looks, the maps are those of its own crops.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin

from distildire.bundle import Bundle
from distildire.io.pictures import RGB
from distildire.io.preprocessing import Preprocessing, halve, reflect_to, turned_back
from distildire.io.writing import make_folder, whole_file

Heat: TypeAlias = NDArray[np.float32]
"""[H, W] in logits, which rise with fake; its mean over what is judged is the logit.

It is drawn less the logit of even odds (`Bundle.neutral`), so that the colours change where
the score does.
"""

WARM, COOL = (214, 69, 40), (38, 110, 168)
"""Evidence for and against generation: apart for red-green colour blindness too."""

VEIL = (128, 128, 128)
"""Laid over what the score doesn't look at."""

CamOf: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Crops uint8 [N, S, S, 3] -> activation maps float32 [N, h, w]."""

_BATCH = 4
"""Tiles in one run of the graph."""

_BLENDED = 2**18
"""Pixels blended at a time: they take some 50 bytes each."""


def tile_corners(height: int, width: int, side: int, stride: int) -> list[tuple[int, int]]:
    """(top, left) of the crops of `side` that cover height x width at steps of about `stride`.

    Raises:
        ValueError: the picture is smaller than a crop, or the stride is not in 1..side.
    """
    if min(height, width) < side:
        raise ValueError(f"{height} x {width} is smaller than a crop of {side}")
    if not 1 <= stride <= side:
        raise ValueError(f"stride is {stride}: give 1 to {side}")

    def starts(length: int) -> list[int]:
        steps = -(-(length - side) // stride) + 1
        return [round(p) for p in np.linspace(0, length - side, steps)]

    return [(top, left) for top in starts(height) for left in starts(width)]


def over_tiles(
    run: CamOf, rgb: RGB, corners: Sequence[tuple[int, int]], side: int
) -> NDArray[np.float32]:
    """What `run` gives for the tiles of `side` at (top, left) `corners`, a few in each run."""
    tiles = [rgb[top : top + side, left : left + side] for top, left in corners]
    starts = range(0, len(tiles), _BATCH)
    return np.concatenate([run(np.stack(tiles[start : start + _BATCH])) for start in starts])


def assemble(
    cams: NDArray[np.float32],
    corners: Sequence[tuple[int, int]],
    side: int,
    height: int,
    width: int,
) -> Heat:
    """Lay activation maps [N, h, w] of crops over the picture: [height, width].

    Where crops overlap, their maps are averaged with weights that fall from a crop's centre
    to its border, where a network sees least context.
    """
    total = np.zeros((height, width), np.float32)
    weight = np.zeros((height, width), np.float32)
    ramp = 1.0 - np.abs((np.arange(side) + 0.5) / side * 2 - 1) * 0.95
    window = (ramp[:, None] * ramp[None, :]).astype(np.float32)
    for cam, (top, left) in zip(cams, corners, strict=True):
        place = np.s_[top : top + side, left : left + side]
        total[place] += window * stretch(cam, side, side)
        weight[place] += window
    return total / weight


def stretch(values: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Bilinear resampling of a float map [h, w] to [height, width]."""
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def picture_heat(
    cam_of: CamOf,
    rgb: RGB,
    preprocessing: Preprocessing,
    *,
    bias: float = 0.0,
    overlap: float = 0.5,
) -> Heat:
    """Heat of a whole picture RGB [H, W, 3] -> [H, W].

    Args:
        cam_of: the detector's activation maps.
        rgb: the decoded picture.
        preprocessing: of the detector; its crop size and its finest scale are used.
        bias: of the linear unit, added everywhere so that the mean is a logit.
        overlap: share of a crop that its neighbour covers again, 0..0.9.
    """
    small = preprocessing.scaled(rgb)
    if not preprocessing.crops:
        small = halve(small)
    padded = reflect_to(small, preprocessing.crop)
    side = preprocessing.crop
    stride = max(1, round(side * (1.0 - overlap)))
    corners = tile_corners(padded.shape[0], padded.shape[1], side, stride)
    heat = assemble(
        over_tiles(cam_of, padded, corners, side), corners, side, padded.shape[0], padded.shape[1]
    )
    heat = heat[: small.shape[0], : small.shape[1]] + np.float32(bias)
    if small.shape != rgb.shape:
        heat = stretch(heat, rgb.shape[1], rgb.shape[0])
    return heat.astype(np.float32)


class HasGraph(Protocol):
    """What a heat map needs of a detector."""

    bundle: Bundle

    def run_graph(self, output: str, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One output of the graph for crops uint8 [N, S, S, 3]."""
        ...


def heat_of(detector: HasGraph, rgb: RGB) -> Heat:
    """Where the score of a decoded picture RGB [H, W, 3] comes from: logits [H, W].

    Of one piece, the mean over `judged_places` is the logit. The other places have what the
    detector would say of them; the score does without.
    """
    preprocessing = detector.bundle.preprocessing
    heat = picture_heat(lambda crops: detector.run_graph("cam", crops), rgb, preprocessing)
    cams = turned_back(detector.run_graph("cam", preprocessing(rgb)), preprocessing.turns)
    heat[judged_places(preprocessing, rgb)] = 0.0
    laid = np.zeros(heat.shape, np.uint8)
    for cam, piece in zip(cams, preprocessing.pieces(rgb), strict=True):
        own = stretch(cam, piece.width, piece.height)
        own = own + (cam.mean() - own.mean())
        height, width = heat[piece.place].shape
        heat[piece.place] += own[:height, :width]
        laid[piece.place] += 1
    heat /= np.maximum(laid, 1)
    return heat


def judged_places(preprocessing: Preprocessing, rgb: RGB) -> NDArray[np.bool_]:
    """Which places of a picture RGB [H, W, 3] the score looks at: [H, W]."""
    judged = np.zeros(rgb.shape[:2], np.bool_)
    for piece in preprocessing.pieces(rgb):
        judged[piece.place] = True
    return judged


def limit_of(heat: Heat) -> float:
    """The drawn heat (in logits) that gets the full colour: the 99th percentile of its size.

    At least 1, so that a picture about which the detector says nothing anywhere stays pale.
    """
    return max(1.0, float(np.quantile(np.abs(heat), 0.99)))


def overlay(
    rgb: RGB,
    heat: Heat,
    limit: float | None = None,
    *,
    judged: NDArray[np.bool_] | None = None,
) -> RGB:
    """Blend heat [H, W] over RGB [H, W, 3]: red leans to fake, blue to real.

    Args:
        rgb: the picture.
        heat: of the same size, 0 at even odds.
        limit: the heat that gets the full colour, by default `limit_of` what is judged.
        judged: where the score looks, [H, W]; the rest is veiled in grey.
    """
    if heat.shape != rgb.shape[:2]:
        raise ValueError(f"heat is {heat.shape}, the picture {rgb.shape[:2]}: give one size")
    if limit is None:
        limit = limit_of(heat if judged is None else heat[judged])
    blend = np.empty_like(rgb)
    strip = max(1, _BLENDED // rgb.shape[1])
    for top in range(0, len(rgb), strip):
        rows = np.s_[top : top + strip]
        veiled = None if judged is None else ~judged[rows]
        blend[rows] = _blend(rgb[rows], heat[rows] / limit, veiled)
    return blend


def _blend(rgb: RGB, share: NDArray[np.float32], veiled: NDArray[np.bool_] | None) -> RGB:
    """`overlay` of [H, W, 3] with the share of full colour [H, W], and VEIL where `veiled`."""
    strength = np.clip(share, -1, 1)[:, :, None]
    colour = np.where(strength > 0, np.array(WARM, np.float32), np.array(COOL, np.float32))
    alpha = np.float32(0.7) * np.abs(strength)
    if veiled is not None:
        colour[veiled], alpha[veiled] = VEIL, 0.75
    grey = (rgb.mean(axis=2, keepdims=True, dtype=np.float32) + rgb) / 2
    blend = grey * (1 - alpha) + colour * alpha
    return np.asarray(np.clip(np.rint(blend), 0, 255), np.uint8)


def noise_view(eps0: NDArray[np.float32]) -> RGB:
    """First-step noise [H, W, 3] as a picture: grey is 0, the 99th percentile full."""
    limit = float(np.quantile(np.abs(eps0), 0.99)) or 1.0
    return np.asarray(np.clip(np.rint(127.5 + 127.5 * eps0 / limit), 0, 255), np.uint8)


def save_heatmap(
    path: Path,
    rgb: RGB,
    heat: Heat,
    note: str = "",
    *,
    judged: NDArray[np.bool_] | None = None,
) -> None:
    """Write the `overlay` as PNG, with a line on how to read it (and `note`) below the picture.

    `heat` is [H, W], 0 at even odds; `judged` as for `overlay`.
    """
    picture = Image.fromarray(overlay(rgb, heat, judged=judged))
    text = ["red: leans to generated, blue: leans to camera"]
    if judged is not None and not judged.all():
        text.append("grey veil: the score doesn't look there")
    text += [note] if note else []
    # The font is six pixels wide.
    lines = [part for line in text for part in textwrap.wrap(line, max(20, picture.width // 6))]
    canvas = Image.new("RGB", (picture.width, picture.height + 14 * len(lines) + 4), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        draw.text((4, picture.height + 2 + 14 * i), line, fill="black")
    about = PngImagePlugin.PngInfo()
    about.add_text("Description", "; ".join(text))
    make_folder(path.parent)
    with whole_file(path) as file:
        canvas.save(file, "PNG", pnginfo=about)
