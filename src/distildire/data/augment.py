"""Augmentation that kills scale and compression as cues, in numpy and Pillow.

Geometry moves the image and whatever is aligned with it (a DIRE map); degradation then
touches the image alone. Noise is computed from the degraded crop, never before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from distildire.io.pictures import RGB
from distildire.io.preprocessing import halve, jpeg, reflect_to, webp

_KERNELS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.BOX,
    Image.Resampling.HAMMING,
)


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities (0..1) and ranges of the training augmentation."""

    resize: float = 0.5
    """Probability of resampling before the crop, with a random kernel."""
    scale: tuple[float, float] = (0.6, 1.25)
    """Range of the scale factor, log-uniform."""
    jpeg: float = 0.7
    quality: tuple[int, int] = (40, 98)
    """JPEG and WebP quality, both ends included."""
    second_jpeg: float = 0.15
    webp: float = 0.1
    blur: float = 0.1
    sigma: tuple[float, float] = (0.2, 1.0)
    """Gaussian blur, in pixels."""
    noise: float = 0.1
    noise_sigma: tuple[float, float] = (0.5, 4.0)
    """Gaussian noise, in grey levels."""
    tone: float = 0.3
    """Probability of a change of brightness and contrast, up to 20%."""
    flip: float = 0.5
    orient: float = 0.0
    """Probability of one of the eight orientations at random, in the place of `flip`."""
    resample: float = 0.0
    """Probability of scaling down and up again, as a copy of a copy."""
    resample_scale: tuple[float, float] = (0.4, 0.95)
    sharpen: float = 0.0
    """Probability of an unsharp mask."""
    grey: float = 0.03
    """Probability of dropping the colour."""
    shuffle: float = 0.0
    """Probability of shuffling the crop's tiles, which hides what it shows but not how it
    was made (after PatchCraft, Zhong et al. 2023). Not for two views (`optim.consistency`)."""
    tile: int = 28
    """Side of the shuffled tiles, in pixels."""
    half: float = 0.0
    """Probability of a view of twice the side, halved at the end: the second scale of
    `Preprocessing.halves`."""
    enlarge: bool = False
    """Scale pictures that are smaller than a view up to it, instead of continuing them by
    reflection, which gives small pictures away."""


CLEAN = AugmentConfig(
    jpeg=0.5, quality=(75, 97), second_jpeg=0.0, webp=0.0, blur=0.0, noise=0.0, tone=0.15, grey=0.0
)
"""What a picture meets that is shared once: at most a good JPEG."""

# JPEG is applied to a slightly larger piece, so that its 8 x 8 grid meets the crop anywhere.
_MARGIN = 8


def augment(
    images: Sequence[RGB], crop: int, config: AugmentConfig, rng: np.random.Generator
) -> list[RGB]:
    """One random training view of the first image, and of the maps aligned with it.

    `images` are [H, W, 3] of one size; the result are as many [crop, crop, 3].
    """
    if rng.random() < config.half:
        big = augment(images, 2 * crop, replace(config, half=0.0, shuffle=0.0), rng)
        return [halve(b) for b in big]
    pieces = _geometry(images, crop + _MARGIN, config, rng)
    pieces[0] = _degrade(pieces[0], config, rng)
    crops = _inside(pieces, crop, rng)
    if rng.random() < config.shuffle:
        order = rng.permutation((crop // config.tile) ** 2)
        crops = [shuffle_tiles(c, config.tile, order) for c in crops]
    return crops


def augment_twice(
    rgb: RGB, crop: int, config: AugmentConfig, clean: AugmentConfig, rng: np.random.Generator
) -> list[RGB]:
    """Two views [crop, crop, 3] of one piece of [H, W, 3]: degraded as `clean`, and as `config`.

    The geometry is that of `config`; the two may be up to eight pixels apart.
    """
    factor = 2 if rng.random() < config.half else 1
    side = factor * crop
    (piece,) = _geometry([rgb], side + _MARGIN, config, rng)
    views = [_inside([_degrade(piece, c, rng)], side, rng)[0] for c in (clean, config)]
    return [halve(view) for view in views] if factor == 2 else views


def _inside(pieces: Sequence[RGB], side: int, rng: np.random.Generator) -> list[RGB]:
    """Cut off the margin, all alike, at a random place."""
    top, left = rng.integers(0, _MARGIN + 1, 2)
    return [np.ascontiguousarray(p[top : top + side, left : left + side]) for p in pieces]


def shuffle_tiles(rgb: RGB, tile: int, order: NDArray[np.int64]) -> RGB:
    """Put the tiles of [S, S, 3] in another order; what exceeds whole tiles stays in place.

    `order` is a permutation of the (S // tile) ** 2 tiles, counted row by row.
    """
    n = rgb.shape[0] // tile
    whole = n * tile
    tiles = (
        rgb[:whole, :whole].reshape(n, tile, n, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    )
    mixed = tiles[order].reshape(n, n, tile, tile, 3).swapaxes(1, 2).reshape(whole, whole, 3)
    result = rgb.copy()
    result[:whole, :whole] = mixed
    return result


def _geometry(
    images: Sequence[RGB], side: int, config: AugmentConfig, rng: np.random.Generator
) -> list[RGB]:
    """Resample, crop to side x side and flip, all images alike."""
    height, width = images[0].shape[:2]
    scale = 1.0
    if rng.random() < config.resize:
        low, high = np.log(config.scale)
        scale = float(np.exp(rng.uniform(low, high)))
        scale = max(scale, min(1.0, side / min(height, width)))
    if config.enlarge:
        scale = max(scale, side / min(height, width))
    kernel = _KERNELS[rng.integers(len(_KERNELS))]
    source = max(1, round(side / scale))
    top = int(rng.integers(0, max(1, height - source + 1)))
    left = int(rng.integers(0, max(1, width - source + 1)))
    flip = rng.random() < config.flip
    turns = 0
    if rng.random() < config.orient:
        flip, turns = bool(rng.integers(2)), int(rng.integers(4))
    pieces = []
    for image in images:
        piece = image[top : top + source, left : left + source]
        if scale != 1.0:
            new = (round(piece.shape[1] * scale), round(piece.shape[0] * scale))
            piece = np.asarray(Image.fromarray(piece).resize(new, kernel))
        piece = reflect_to(piece, side)[:side, :side]
        pieces.append(np.rot90(piece[:, ::-1] if flip else piece, turns))
    return pieces


def _degrade(rgb: RGB, config: AugmentConfig, rng: np.random.Generator) -> RGB:
    """Tone, blur, noise and compression, in the order in which pictures meet them."""
    if rng.random() < config.tone:
        gain, shift = rng.uniform(0.8, 1.2), rng.uniform(-20, 20)
        rgb = np.clip((rgb.astype(np.float32) - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
    if rng.random() < config.grey:
        rgb = np.array(Image.fromarray(np.ascontiguousarray(rgb)).convert("L").convert("RGB"))
    if rng.random() < config.blur:
        blur = ImageFilter.GaussianBlur(rng.uniform(*config.sigma))
        rgb = np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).filter(blur))
    if rng.random() < config.resample:
        rgb = _resampled(rgb, config, rng)
    if rng.random() < config.sharpen:
        mask = ImageFilter.UnsharpMask(2, int(rng.integers(50, 150)), 2)
        rgb = np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).filter(mask))
    if rng.random() < config.noise:
        noise = rng.standard_normal(rgb.shape, np.float32) * rng.uniform(*config.noise_sigma)
        rgb = np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)
    if rng.random() < config.webp:
        return webp(rgb, _quality(config, rng), method=1)
    if rng.random() < config.jpeg:
        rgb = _jpeg(rgb, config, rng)
        if rng.random() < config.second_jpeg:
            top, left = rng.integers(0, 8, 2)
            rgb = np.roll(rgb, (-top, -left), (0, 1))
            rgb = np.roll(_jpeg(rgb, config, rng), (top, left), (0, 1))
    return rgb


def _resampled(rgb: RGB, config: AugmentConfig, rng: np.random.Generator) -> RGB:
    """Scaled down and up again, each by a random kernel."""
    height, width = rgb.shape[:2]
    scale = rng.uniform(*config.resample_scale)
    down, up = (_KERNELS[i] for i in rng.integers(len(_KERNELS), size=2))
    small = (max(8, round(width * scale)), max(8, round(height * scale)))
    picture = Image.fromarray(np.ascontiguousarray(rgb)).resize(small, down)
    return np.asarray(picture.resize((width, height), up))


def _quality(config: AugmentConfig, rng: np.random.Generator) -> int:
    return int(rng.integers(config.quality[0], config.quality[1] + 1))


def _jpeg(rgb: RGB, config: AugmentConfig, rng: np.random.Generator) -> RGB:
    subsampling = (0, 2)[rng.integers(2)]
    return jpeg(rgb, _quality(config, rng), subsampling)
