"""Two autoencoders and a diffusion model, trained here on small pieces of photographs.

All are convolutional, so that they take pictures of any size whose sides are multiples of
`MULTIPLE`. What they are for is the traces of their decoders, not their quality.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from small_world.config import AdmTraining
from small_world.generators import (
    Budget,
    Loss,
    Report,
    adm_network,
    ddpm_loss,
    fit,
    from_pictures,
    save_adm,
    sdedit,
    to_pictures,
)
from small_world.pictures import Pictures
from torch import Tensor, nn
from torch.nn import functional as F

from distildire.io.pictures import RGB
from distildire.noise import NoiseSource, load_noise_source

MULTIPLE = 8
"""Of the sides of a picture: two halvings of the autoencoders, three of the diffusion model."""

WIDTH, LATENT = 32, 6
"""Channels at half the picture's size; of the latent, at a quarter."""

LEVELS = 5
"""Of each channel of a code: LEVELS ** LATENT codes in all."""

STEPS = {"plain": 1800, "vq": 1400}
"""Of training."""

ADM = AdmTraining(channels=(32, 32, 64, 96), attention=(False,) * 4, steps=900, batch=8)
"""Without attention, so that pieces teach it what a whole picture needs."""

Upsampling = Literal["transposed", "nearest"]


class Block(nn.Module):
    """Two convolutions beside the identity, [B, C, H, W] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        y: Tensor = x + self.branch(x)
        return y


def make_encoder() -> nn.Sequential:
    """From x0 [B, 3, H, W] to [B, LATENT, H / 4, W / 4]."""
    return nn.Sequential(
        nn.Conv2d(3, WIDTH, 4, 2, 1), Block(WIDTH), nn.Conv2d(WIDTH, 2 * WIDTH, 4, 2, 1),
        Block(2 * WIDTH), Block(2 * WIDTH), nn.Conv2d(2 * WIDTH, LATENT, 3, padding=1),
    )  # fmt: skip


def make_decoder(upsampling: Upsampling) -> nn.Sequential:
    """From [B, LATENT, h, w] to a picture [B, 3, 4 h, 4 w] in about [-1, 1]."""

    def double(before: int, after: int) -> list[nn.Module]:
        if upsampling == "transposed":
            return [nn.ConvTranspose2d(before, after, 4, 2, 1)]
        return [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]

    return nn.Sequential(
        nn.Conv2d(LATENT, 2 * WIDTH, 3, padding=1), Block(2 * WIDTH), Block(2 * WIDTH),
        *double(2 * WIDTH, WIDTH), Block(WIDTH), *double(WIDTH, WIDTH), nn.SiLU(),
        nn.Conv2d(WIDTH, 3, 3, padding=1),
    )  # fmt: skip


class Plain(nn.Module):
    """A continuous latent, enlarged by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = make_encoder(), make_decoder("transposed")

    def forward(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """x0 [B, 3, H, W] -> (reconstruction, what the latent costs beside it)."""
        z = self.encode(x0)
        return self.decode(z), 1e-4 * z.float().square().mean()


class Vq(nn.Module):
    """Codes on a grid, of which none dies (FSQ, Mentzer et al. 2024); nearest upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = make_encoder(), make_decoder("nearest")

    def quantise(self, z: Tensor) -> Tensor:
        """z [B, LATENT, h, w] -> the nearest codes to tanh(z); the gradient is that of tanh."""
        bounded = z.float().tanh()
        steps = (LEVELS - 1) / 2
        return bounded + ((bounded * steps).round() / steps - bounded).detach()

    def forward(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """x0 [B, 3, H, W] -> (reconstruction, nothing beside it)."""
        code = self.quantise(self.encode(x0))
        return self.decode(code), code.new_zeros(())


AUTOENCODERS: dict[str, type[Plain] | type[Vq]] = {"plain": Plain, "vq": Vq}


def reconstruction_loss(network: nn.Module) -> Loss:
    """Absolute error of the pixels and of the steps between neighbours, and the latent's own."""

    def steps(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.diff(dim=2), x.diff(dim=3)

    def loss(x0: Tensor, generator: torch.Generator) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            again, beside = network(x0)
        again = again.float()
        edges = sum(F.l1_loss(a, b) for a, b in zip(steps(again), steps(x0), strict=True))
        total: Tensor = F.l1_loss(again, x0) + edges + beside
        return total

    return loss


def in_bfloat16(loss: Loss) -> Loss:
    """The same loss, its network under autocast."""

    def cast(x0: Tensor, generator: torch.Generator) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss(x0, generator)

    return cast


def train_autoencoder(
    name: str, pieces: Pictures, folder: Path, steps: int, report: Report | None = None
) -> nn.Module:
    """A key of `AUTOENCODERS`, trained on pieces [N, S, S, 3] or read from `folder`."""
    torch.manual_seed(0)
    network = AUTOENCODERS[name]()
    budget = Budget(steps, batch=16, lr=1e-3, ema=0.99)
    loss = reconstruction_loss(network)
    return fit(network, loss, pieces, folder / f"{name}.pt", budget, report)


def train_adm(
    pieces: Pictures, folder: Path, how: AdmTraining = ADM, report: Report | None = None
) -> NoiseSource:
    """A small ADM, trained on pieces [N, S, S, 3] or read from `folder`."""
    if not (folder / "adm" / "scheduler_config.json").is_file():
        torch.manual_seed(0)
        network = adm_network(how, pieces.shape[1])
        budget = Budget(how.steps, how.batch, how.lr, how.ema)
        fit(network, in_bfloat16(ddpm_loss(network)), pieces, folder / "adm.pt", budget, report)
        save_adm(network, folder / "adm")
    return load_noise_source(folder / "adm", dtype="bf16")


@torch.inference_mode()
def reconstruct(network: nn.Module, rgb: RGB) -> RGB:
    """A picture [H, W, 3] through an autoencoder; sides are multiples of `MULTIPLE`."""
    with torch.autocast("cpu", torch.bfloat16):
        again, _ = network(from_pictures(rgb[None]))
    return np.asarray(to_pictures(again.float())[0])


def edit(source: NoiseSource, rgb: RGB, count: int, steps: int, seed: int) -> RGB:
    """A picture noised up to the `count`th of `steps` levels and sampled back, [H, W, 3]."""
    x0 = from_pictures(rgb[None])
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    again = sdedit(source.predict, x0, source.alpha_bar, count, steps, noise)
    return np.asarray(to_pictures(again)[0])
