"""Is there anything to judge? Pictures without photographic content get no verdict.

A uniform colour, a gradient, noise, a page of text, a diagram, a pattern, two tones, an enlarged
thumbnail or a picture crushed by compression holds no trace of a camera or of a generator,
whatever a network says of it. Neither does an empty canvas around a small photograph that the
network doesn't look at. The bounds were set on made-up pictures of these kinds against
photographs and generated pictures (docs/limits.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distildire.io.pictures import RGB

_CENTRE = 512
"""Side of the piece, at native pixels, in which detail and compression are looked at."""
_SMALL = 256
"""Shorter side of the small picture in which areas and tones are looked at."""


@dataclass(frozen=True)
class Content:
    """What the gate looks at; shares are 0..1, deviations in grey levels."""

    detail: float
    """Deviation of the native pixels from an eightfold smaller picture brought back."""
    relative_detail: float
    """The same over the deviation of the whole: near 0 nothing finer than a thumbnail is left,
    near 1 there is nothing but noise."""
    equal: float
    """Share of neighbouring pixels that are equal."""
    dead_blocks: float
    """Share of JPEG's 8 x 8 blocks that hold one value."""
    terraces: float
    """Share of neighbouring pairs of these whose values are more than 3 grey levels apart: JPEG's
    coarse steps; the blocks of a plain wall or sky differ by less."""
    tones: float
    """Deviation of the values of the blocks."""
    background: float
    """Share of the commonest colour."""
    core: float
    """Share of the picture that differs from that colour and is thicker than a stroke."""
    near: float
    """Correlation of grey levels one pixel apart."""
    far: float
    """The same, four pixels apart in the small picture."""


def nothing_to_judge(rgb: RGB, crops: NDArray[np.uint8] | None = None) -> str | None:
    """Why a picture [H, W, 3] can't be judged, as one sentence; None where it can.

    Args:
        rgb: the picture.
        crops: uint8 [N, S, S, 3], what a network is given of it, to be looked at as well.
    """
    if not plainly_a_photograph(rgb) and (reason := _nothing_in(measure(rgb))) is not None:
        return reason
    grey = np.asarray(_centre(rgb))
    if is_pattern(grey):
        return "nothing to judge: the picture is a pattern, not a photograph"
    if two_tones(grey) > 0.999:
        return "nothing to judge: the picture has two tones, and is no photograph"
    if crops is not None and emptiness(crops) > 0.8:
        return "nothing to judge: most of what the model looks at is empty"
    return None


def _nothing_in(look: Content) -> str | None:
    if look.detail < 1.0 or (look.detail < 2.0 and look.tones < 4.0):
        return "nothing to judge: the picture is a uniform area or a smooth gradient"
    if look.relative_detail < 0.055 or (look.equal > 0.9 and look.background < 0.4):
        return "nothing to judge: an enlarged thumbnail, or what strong compression has left"
    noisy = look.far < 0.15 and look.near < 0.85 and look.relative_detail > 0.7
    if noisy and look.background < 0.4:
        return "nothing to judge: the picture is noise"
    if noisy or (look.background > 0.5 and look.core < 0.025):
        # Strokes, however faint, go together over some pixels.
        if look.far < 0.08 and look.tones < 4.0 and look.equal < 0.5:
            return "nothing to judge: the picture is a uniform area with noise"
        return "nothing to judge: the picture is text or a drawing, not a photograph"
    if look.equal > 0.85 and look.background > 0.4 and look.core < 0.25:
        return "nothing to judge: the picture is a diagram or a screenshot, not a photograph"
    crushed = look.dead_blocks > 0.68 and look.equal > 0.78 and look.terraces > 0.02
    if crushed and look.background < 0.5:
        return "nothing to judge: strong compression has left no detail"
    return None


_ROWS = 48
_RUN = 512
"""Pixels of each row, from its middle."""


def plainly_a_photograph(rgb: RGB) -> bool:
    """Whether a few rows of a picture [H, W, 3] are far from every bound of `nothing_to_judge`.

    They have detail, tones that differ, neighbours that are alike but not equal, and no colour
    that fills the picture.
    """
    height, width = rgb.shape[:2]
    if height < _ROWS or width < 128:
        return False
    rows = np.linspace(0, height - 1, _ROWS).astype(int)
    left, run = max(0, (width - _RUN) // 2), min(width, _RUN) // 8 * 8
    sample = rgb[rows, left : left + run].astype(np.int16)
    grey = sample.sum(axis=2, dtype=np.int16).astype(np.float32) / 3
    groups = grey.reshape(_ROWS, -1, 8)
    means = groups.mean(axis=2)
    detail, spread = float((groups - means[..., None]).std()), float(grey.std())
    centred = grey - grey.mean()
    far = float((centred[:, 8:] * centred[:, :-8]).mean()) / (spread**2 + 1e-6)
    steps = np.diff(grey, axis=1)
    equal = float((steps == 0).mean())
    levels = sample[:, ::4] >> 4
    codes = (levels[..., 0] << 8) + (levels[..., 1] << 4) + levels[..., 2]
    background = float(np.bincount(codes.ravel()).max()) / codes.size
    return (
        detail > 5.0 and detail > 0.12 * spread and spread > 12.0
        and far > 0.35 and equal < 0.35 and background < 0.2
    )  # fmt: skip


def measure(rgb: RGB) -> Content:
    """The figures of a picture [H, W, 3] that `nothing_to_judge` decides by."""
    picture = _centre(rgb)
    native = np.asarray(picture, np.float32)
    w, h = picture.size
    coarse = picture.resize((max(1, w // 8), max(1, h // 8)), Image.Resampling.BOX)
    back = np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC), np.float32)
    detail = float((native - back).std())
    blocks = native[: h // 8 * 8, : w // 8 * 8].reshape(h // 8, 8, w // 8, 8)
    values = blocks.mean(axis=(1, 3))
    dead = blocks.std(axis=(1, 3)) < 0.6
    equal = [float((native[:, 1:] == native[:, :-1]).mean()),
             float((native[1:] == native[:-1]).mean())]  # fmt: skip

    small = _small(rgb)
    background, core = _foreground(small)
    grey = np.asarray(Image.fromarray(small).convert("L"), np.float32)
    return Content(
        detail=detail,
        relative_detail=detail / (float(native.std()) + 1.0),
        equal=sum(equal) / 2,
        dead_blocks=float(dead.mean()),
        terraces=_terraces(values, dead),
        tones=float(values.std()),
        background=background,
        core=core,
        near=min(_correlations(grey, 1)),
        far=max(_correlations(grey, 4)),
    )


_WINDOW = 64
"""Side of the windows in which repetition is looked for."""


_ALIKE = 0.82
"""Autocorrelation above which a window repeats."""

_EVEN = 0.58
"""Least ratio of the third weakest to the third strongest of nine windows, by their contrast."""


def is_pattern(grey: NDArray[np.uint8]) -> bool:
    """Whether the windows of grey levels [H, W] match themselves, moved by 6 to 28 pixels.

    By their autocorrelation, 1 for what repeats exactly or varies in one direction alone: stripes,
    checks, dots, gratings and, window by window, circles. All but two of nine windows match, at
    full size or at half, and are about as strong as each other, which the folds of a curtain or
    the bars of a fence are not; coarse shades, which match in every photograph, are taken out.
    """
    halved = np.asarray(Image.fromarray(grey).reduce(2))
    return any(_repeats(level) for level in (grey, halved) if min(level.shape) >= 32)


def _repeats(grey: NDArray[np.uint8]) -> bool:
    height, width = grey.shape
    picture = Image.fromarray(grey.astype(np.float32))
    shades = picture.resize((width // 8, height // 8), Image.Resampling.BOX)
    fine = np.asarray(picture) - np.asarray(shades.resize(picture.size, Image.Resampling.BILINEAR))
    side = min(_WINDOW, height, width)
    mask, most, ring = _window(side)
    tops, lefts = (np.linspace(0, length - side, 3).astype(int) for length in (height, width))
    unlike, powers = 0, []
    for top in tops:  # of most photographs the first three tell
        windows = np.stack([fine[top : top + side, left : left + side] for left in lefts])
        windows -= windows.mean(axis=(1, 2), keepdims=True)
        matches = _matches(windows * mask)
        power = matches[:, 0, 0] / most[0, 0]
        powers.extend(power)
        best = (matches[:, ring] / most[ring]).max(axis=1) / (power + 0.25)
        unlike += int((best <= _ALIKE).sum())
        if unlike > 2:
            return False
    contrasts = np.sqrt(np.sort(powers))
    return bool(contrasts[2] > _EVEN * contrasts[-3])


@cache
def _window(
    side: int,
) -> tuple[NDArray[np.float32], NDArray[np.floating], NDArray[np.bool_]]:
    """Of windows of `side`: the mask they fade by, its own matches, and the moves looked at."""
    fade = np.hanning(side + 1)[:-1].astype(np.float32)
    mask = np.outer(fade, fade)
    moves = np.fft.fftfreq(side, 1 / side)
    distance = np.hypot(moves[:, None], moves)
    return mask, _matches(mask[None])[0], (distance >= 6) & (distance <= 0.44 * side)


def _matches(windows: NDArray[np.float32]) -> NDArray[np.floating]:
    """Products of windows [N, S, S] with themselves, for each move."""
    return np.fft.irfft2(np.abs(np.fft.rfft2(windows)) ** 2, windows.shape[1:])


def two_tones(grey: NDArray[np.uint8]) -> float:
    """Otsu's criterion (1979) of the quieter half of grey levels [H, W]: 1 for two tones alone.

    The share of the variance that lies between two classes; edges, where tones blend, don't count.
    """
    rows = grey[:-1:2].astype(np.int16)
    steps = np.abs(np.diff(rows, axis=1))
    np.maximum(steps, np.abs(grey[1::2, :-1] - rows[:, :-1]), out=steps)
    edges = np.bincount(steps.ravel(), minlength=256).cumsum()
    quiet = rows[:, :-1][steps <= np.searchsorted(edges, edges[-1] / 2)]
    share = np.bincount(quiet, minlength=256) / quiet.size
    below, moment = share.cumsum(), (share * np.arange(256)).cumsum()
    mean = moment[-1]
    variance = float((share * (np.arange(256) - mean) ** 2).sum())
    inside = (below > 0.001) & (below < 0.999)
    low, up_to = below[inside], moment[inside]
    between = (mean * low - up_to) ** 2 / (low * (1 - low))
    return float(between.max(initial=0.0)) / (variance + 1e-9)


def emptiness(crops: NDArray[np.uint8]) -> float:
    """Share of the 8 x 8 blocks of crops [N, S, S, 3] that hold one value, but for faint noise."""
    side = crops.shape[1] // 8 * 8
    red, green, blue = (crops[:, :side, :side, plane] for plane in range(3))
    grey = (red.astype(np.int16) + green + blue) / np.float32(3)
    blocks = grey.reshape(len(grey), side // 8, 8, side // 8, 8)
    return float((blocks.std(axis=(2, 4)) < 1.0).mean())


def _centre(rgb: RGB) -> Image.Image:
    """Grey levels of the middle, on JPEG's grid, so that its blocks are whole ones."""
    top, left = (max(0, (side - _CENTRE) // 2) // 8 * 8 for side in rgb.shape[:2])
    centre = rgb[top : top + _CENTRE, left : left + _CENTRE]
    return Image.fromarray(np.ascontiguousarray(centre)).convert("L")


def _small(rgb: RGB) -> RGB:
    height, width = rgb.shape[:2]
    scale = _SMALL / min(height, width)
    if scale >= 1:
        return np.ascontiguousarray(rgb)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Every second or third pixel of a large picture tells areas and tones as well.
    step = max(1, int(0.5 / scale))
    picture = Image.fromarray(np.ascontiguousarray(rgb[::step, ::step]))
    return np.asarray(picture.resize(size, Image.Resampling.BOX))


def _terraces(values: NDArray[np.float32], dead: NDArray[np.bool_]) -> float:
    """Share of the pairs of dead blocks, side by side or one above the other, that differ."""
    across = np.abs(np.diff(values, axis=1))[dead[:, 1:] & dead[:, :-1]]
    down = np.abs(np.diff(values, axis=0))[dead[1:] & dead[:-1]]
    pairs = np.concatenate([across, down])
    return float((pairs > 3).mean()) if pairs.size else 0.0


def _foreground(rgb: RGB) -> tuple[float, float]:
    """Share of the commonest colour, and of what differs from it over more than a stroke."""
    levels = (rgb.astype(np.int32) + 4) >> 3
    codes = (levels[..., 0] * 33 + levels[..., 1]) * 33 + levels[..., 2]
    counts = np.bincount(codes.ravel())
    colour = rgb.reshape(-1, 3)[int((codes.ravel() == counts.argmax()).argmax())]
    other = (np.abs(rgb.astype(np.int32) - colour) > 12).any(axis=2)
    core: NDArray[np.bool_] = other
    for _ in range(3):
        inner, beside = core[1:-1, 1:-1], core[1:-1, :-2] & core[1:-1, 2:]
        core = inner & beside & core[:-2, 1:-1] & core[2:, 1:-1]
    return float(counts.max() / codes.size), float(core.mean()) if core.size else 0.0


def _correlations(grey: NDArray[np.float32], step: int) -> tuple[float, float]:
    """Of values `step` pixels apart: across and down."""
    centred = grey - grey.mean()
    power = float((centred**2).mean()) + 1e-6
    across = float((centred[:, step:] * centred[:, :-step]).mean()) / power
    down = float((centred[step:] * centred[:-step]).mean()) / power
    return across, down
