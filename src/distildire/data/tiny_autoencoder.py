"""Tiny autoencoders (TAESD and its kin): a picture through the latent space of a generator.

The reconstruction shows what the picture shows, and bears the traces of a latent decoder: an
aligned pair. The weights are those of github.com/madebyollin/taesd (MIT), read from a local
clone; each pair of files imitates the autoencoder of one family of generators.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from distildire.data.clones import find_clone, read_blobs
from distildire.io.pictures import RGB
from distildire.noise.threads import torch_threads

REPOSITORY = "madebyollin/taesd"
COMMIT = "5cccb12dc72074a4be35680c3b108548a7c69978"

WIDTH = 64
"""Channels between the picture and the latent."""

DOWN = 8
"""Pixels of the picture to one of the latent, along a side."""


@dataclass(frozen=True)
class Shape:
    """In what the networks differ."""

    latent: int
    """Channels of the latent."""
    pooled: bool = False
    """Whether the blocks at the latent's size normalise over the whole picture first."""


AUTOENCODERS = {
    "taesd": Shape(4),  # Stable Diffusion 1 and 2
    "taesdxl": Shape(4),  # Stable Diffusion XL
    "taesd3": Shape(16),  # Stable Diffusion 3
    "taef1": Shape(16),  # FLUX.1, Z-Image
    "taef2": Shape(32, pooled=True),  # FLUX.2
}


class ReconstructionError(ValueError):
    """A reconstruction that can't be made; the message says what is missing."""


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


class _Block(nn.Module):
    """Three convolutions beside the identity, [B, C, H, W] to the same."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH)
        )
        self.pool = _normalised() if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def _normalised() -> nn.Sequential:
    wide = 4 * WIDTH
    return nn.Sequential(
        nn.Conv2d(WIDTH, wide, 1, bias=False), nn.GroupNorm(4, wide), nn.ReLU(),
        nn.Conv2d(wide, WIDTH, 1, bias=False),
    )  # fmt: skip


class _Bounded(nn.Module):
    """Latents into (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def make_encoder(shape: Shape) -> nn.Sequential:
    """From RGB in [0, 1] [B, 3, H, W] to the latent [B, latent, H / 8, W / 8]."""
    layers: list[nn.Module] = [_conv(3, WIDTH), _Block()]
    for pooled in (False, False, shape.pooled):
        layers += [_conv(WIDTH, WIDTH, stride=2, bias=False), *(_Block(pooled) for _ in range(3))]
    return nn.Sequential(*layers, _conv(WIDTH, shape.latent))


def make_decoder(shape: Shape) -> nn.Sequential:
    """From the latent [B, latent, h, w] to RGB in about [0, 1] [B, 3, 8 h, 8 w]."""
    layers: list[nn.Module] = [_Bounded(), _conv(shape.latent, WIDTH), nn.ReLU()]
    for pooled in (shape.pooled, False, False):
        layers += [_Block(pooled) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)]
    return nn.Sequential(*layers, _Block(), _conv(WIDTH, 3))


def reconstruct(encoder: nn.Sequential, decoder: nn.Sequential, rgb: RGB) -> RGB:
    """A picture [h, w, 3] through both, of any size: its edges are repeated to whole eights.

    bfloat16 but for the last layer, whose output it would leave in steps of a grey level.
    """
    height, width = rgb.shape[:2]
    filled = np.pad(rgb, ((0, -height % DOWN), (0, -width % DOWN), (0, 0)), mode="edge")
    x = torch.from_numpy(filled.astype(np.float32) / 255).permute(2, 0, 1)[None]
    # The order of sums, and so the bytes, must not depend on the number of cores.
    with torch.inference_mode(), torch_threads(1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = decoder[:-1](encoder(x.contiguous(memory_format=torch.channels_last)))
        x = decoder[-1](x.float())
        levels = (x[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(levels[:, :height, :width].permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class TinyAutoencoders:
    """The autoencoders of a clone by name; a `Reconstruct`."""

    clones: Path
    """Folder of git clones; that of `REPOSITORY` is below it."""
    commit: str = COMMIT

    def __call__(self, name: str, rgb: RGB) -> RGB:
        """The reconstruction of a picture [h, w, 3].

        Raises:
            ReconstructionError: an unknown name, no clone, or no weights in it.
        """
        return reconstruct(*load_autoencoder(self.clones, self.commit, name), rgb)


@cache
def load_autoencoder(clones: Path, commit: str, name: str) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder of a key of `AUTOENCODERS`, from the clone of `REPOSITORY`.

    Raises:
        ReconstructionError: an unknown name, no clone, or no weights in it.
    """
    if name not in AUTOENCODERS:
        raise ReconstructionError(f"no autoencoder {name}: give {', '.join(AUTOENCODERS)}")
    git = find_clone(clones, REPOSITORY)
    if git is None:
        raise ReconstructionError(f"no clone of {REPOSITORY}, which holds the autoencoders")
    files = [f"{name}_encoder.pth", f"{name}_decoder.pth"]
    weights = dict(zip(files, read_blobs(git, [f"{commit}:{f}" for f in files]), strict=True))
    encoder, decoder = make_encoder(AUTOENCODERS[name]), make_decoder(AUTOENCODERS[name])
    for (file, content), network in zip(weights.items(), (encoder, decoder), strict=True):
        if content is None:
            raise ReconstructionError(
                f"no {file} in the clone of {REPOSITORY} at {commit}: fetch that commit whole"
            )
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network.load_state_dict(state)
        network.eval().to(memory_format=torch.channels_last)
    return encoder, decoder
