"""Training views made on the device, a whole batch at once: `data.augment`, on the GPU.

Pictures are stored at a little over the half size that `Preprocessing.halves` looks at, so
blur, noise and compression act at half size here, and their ranges are milder.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from distildire.data.augment import AugmentConfig

MARGIN = 8
STORED = 256 / 448
"""Stored pixels per pixel of a crop."""

LUMA = torch.tensor(
    [[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
     [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
     [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
     [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]]
).float()  # fmt: skip
CHROMA = torch.full((8, 8), 99.0)
CHROMA[:4, :4] = torch.tensor(
    [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
)
"""Quantisation of the JPEG standard (ITU-T T.81, Annex K), at quality 50."""
TO_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def _dct() -> Tensor:
    k = torch.arange(8.0)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis


def _quantised(plane: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    """[B, C, H, W], sides multiples of 8, through the transform of 8 x 8 blocks and back."""
    b, c, h, w = plane.shape
    basis = _dct().to(plane)
    blocks = plane.reshape(b, c, h // 8, 8, w // 8, 8)
    seen = torch.einsum("uy,bciyjx,vx->bciujv", basis, blocks, basis)
    step = (table.to(plane) * scale[:, None, None]).round().clamp(1, 255)[:, None, None, :, None, :]
    seen = (seen / step).round() * step
    back = torch.einsum("uy,bciujv,vx->bciyjx", basis, seen, basis)
    return back.reshape(b, c, h, w)


def jpeg(x: Tensor, quality: Tensor, halved: Tensor) -> Tensor:
    """One JPEG pass of [B, 3, H, W] in 0..255, sides multiples of 8.

    `quality` [B], 1 to 100; `halved` [B] bool: chroma at half the size (4:2:0).
    """
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    matrix = TO_YCC.to(x)
    ycc = torch.einsum("dc,bchw->bdhw", matrix, x - 128)
    luma = _quantised(ycc[:, :1], LUMA, scale)
    chroma = torch.empty_like(ycc[:, 1:])
    full = ~halved
    if full.any():
        chroma[full] = _quantised(ycc[full, 1:], CHROMA, scale[full])
    if halved.any():
        small = F.avg_pool2d(ycc[halved, 1:], 2)
        h, w = small.shape[-2:]
        padded = F.pad(small, (0, -w % 8, 0, -h % 8), mode="replicate")
        small = _quantised(padded, CHROMA, scale[halved])[..., :h, :w]
        chroma[halved] = F.interpolate(small, ycc.shape[-2:], mode="bilinear", align_corners=False)
    back = torch.einsum("dc,bchw->bdhw", torch.linalg.inv(matrix), torch.cat([luma, chroma], 1))
    return (back + 128).round().clamp(0, 255)


def _blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of [B, 3, H, W], `sigma` [B] in pixels, at most 1.5."""
    at = torch.arange(-4, 5, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(at**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    b, _, h, w = x.shape
    flat = F.pad(x, (4, 4, 4, 4), mode="reflect").reshape(1, b * 3, h + 8, w + 8)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=b * 3)
    return F.conv2d(flat, kernel[:, None, :, None], groups=b * 3).reshape(b, 3, h, w)


class ViewMaker:
    """Random views of stored pictures, uint8 [N, 3, 256, 256], on their device."""

    def __init__(self, crop: int, config: AugmentConfig, generator: torch.Generator) -> None:
        self.crop, self.config, self.generator = crop, config, generator
        self.device = generator.device

    def _uniform(self, low: float, high: float, count: int) -> Tensor:
        return low + (high - low) * torch.rand(count, device=self.device, generator=self.generator)

    def _some(self, share: float, count: int) -> Tensor:
        """Indices that are taken with probability `share`."""
        return torch.nonzero(self._uniform(0, 1, count) < share)[:, 0]

    @torch.no_grad()
    def __call__(self, stored: Tensor) -> Tensor:
        """[B, 3, 256, 256] uint8 -> views [B, 3, crop, crop] uint8."""
        piece = self._degraded(self._moved(stored))
        top, left = (int(v) for v in self._uniform(0, MARGIN + 1, 2).long().clamp(max=MARGIN))
        return piece[:, :, top : top + self.crop, left : left + self.crop].to(torch.uint8)

    def _moved(self, stored: Tensor) -> Tensor:
        """Scaled, cut and turned: float [B, 3, crop + margin, crop + margin], 0..255."""
        b, config = len(stored), self.config
        out, side = self.crop + MARGIN, stored.shape[-1]
        scale = torch.ones(b, device=self.device)
        some = self._some(config.resize, b)
        low, high = (math.log(v) for v in config.scale)
        scale[some] = self._uniform(low, high, len(some)).exp()
        # Output pixels per stored pixel; all of the picture at least.
        ratio = (scale * 0.5 / STORED).clamp(min=out / side)
        reach = out / (ratio * side)  # share of the side that is seen
        centre = self._uniform(-1, 1, 2 * b).reshape(b, 2) * (1 - reach)[:, None]
        turn = torch.zeros(b, dtype=torch.long, device=self.device)
        flip = self._uniform(0, 1, b) < config.flip
        some = self._some(config.orient, b)
        turn[some] = self._uniform(0, 4, len(some)).long().clamp(max=3)
        cos = torch.tensor([1.0, 0.0, -1.0, 0.0], device=self.device)[turn] * reach
        sin = torch.tensor([0.0, 1.0, 0.0, -1.0], device=self.device)[turn] * reach
        sign = torch.where(flip, -1.0, 1.0)
        theta = torch.stack(
            [torch.stack([cos * sign, -sin, centre[:, 0]], 1),
             torch.stack([sin * sign, cos, centre[:, 1]], 1)], 1
        )  # fmt: skip
        grid = F.affine_grid(theta, [b, 3, out, out], align_corners=False)
        mode = ("bilinear", "bicubic")[int(self._uniform(0, 2, 1).long().clamp(max=1))]
        moved = F.grid_sample(
            stored.float(), grid, mode=mode, padding_mode="reflection", align_corners=False
        )
        return moved.clamp(0, 255)

    def _degraded(self, x: Tensor) -> Tensor:
        config, b = self.config, len(x)

        def change(share: float, what: Callable[[Tensor], Tensor]) -> None:
            some = self._some(share, b)
            if len(some):
                x[some] = what(x[some])

        def between(low: float, high: float, of: Tensor) -> Tensor:
            return self._uniform(low, high, len(of))[:, None, None, None]

        def tone(y: Tensor) -> Tensor:
            return (y - 128) * between(0.8, 1.2, y) + 128 + between(-20, 20, y)

        def grey(y: Tensor) -> Tensor:
            return (y * TO_YCC[0].to(y)[:, None, None]).sum(1, keepdim=True).expand_as(y)

        def blur(y: Tensor) -> Tensor:
            low, high = config.sigma
            return _blurred(y, self._uniform(low / 2, high / 2, len(y)))

        def resample(y: Tensor) -> Tensor:
            low, high = config.resample_scale
            parts = []
            for part in y.chunk(4):
                share = min(1.0, 1.4 * float(self._uniform(low, high, 1)))  # half as large: milder
                down = F.interpolate(part, scale_factor=share, mode="bilinear", antialias=True)
                parts.append(F.interpolate(down, y.shape[-2:], mode="bicubic"))
            return torch.cat(parts)

        def sharpen(y: Tensor) -> Tensor:
            return y + between(0.3, 1.2, y) * (y - _blurred(y, y.new_ones(len(y))))

        def noise(y: Tensor) -> Tensor:
            low, high = config.noise_sigma
            random = torch.randn(y.shape, device=y.device, generator=self.generator)
            return y + between(low / 2, high / 2, y) * random

        change(config.tone, tone)
        change(config.grey, grey)
        change(config.blur, blur)
        change(config.resample, resample)
        change(config.sharpen, sharpen)
        change(config.noise, noise)
        x = x.round().clamp(0, 255)
        low, high = config.quality
        some = self._some(1 - (1 - config.jpeg) * (1 - config.webp), b)
        again = some[self._some(config.second_jpeg, len(some))]
        for rows, roll in ((some, 0), (again, 1)):
            if len(rows):
                at = [int(v) for v in self._uniform(0, 8, 2).long()] if roll else [0, 0]
                piece = torch.roll(x[rows], at, (2, 3))
                quality = self._uniform(low + 15, high, len(rows))  # half as large: milder
                piece = jpeg(piece, quality, self._uniform(0, 1, len(rows)) < 0.5)
                x[rows] = torch.roll(piece, [-v for v in at], (2, 3))
        return x
