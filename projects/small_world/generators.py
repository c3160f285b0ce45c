"""Three tiny generators, one training loop, and fakes by noising and sampling back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distildire.distill.loss import noise_loss
from distildire.io.writing import whole_file
from distildire.noise.adm import AdmConfig, AdmNoise, build_unet
from distildire.noise.schedule import (
    BETA_END,
    BETA_START,
    STEPS,
    Predict,
    add_noise,
    ddim,
    from_unit,
    linear_alpha_bar,
    path_down,
    to_unit,
)
from distildire.noise.source import NoiseSource
from small_world.config import AdmTraining, CodecTraining
from small_world.pictures import Pictures

Report: TypeAlias = Callable[[str, int, int, float], None]
"""(stage, steps done, steps in all, loss)."""

Loss: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""(x0 [B, 3, H, W] in [-1, 1], generator) -> scalar."""


def from_pictures(pictures: Pictures) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    return to_unit(torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))))


def to_pictures(x0: Tensor) -> Pictures:
    """The inverse of `from_pictures`, rounded and clipped."""
    return np.asarray(from_unit(x0).permute(0, 2, 3, 1).contiguous().numpy())


@dataclass(frozen=True)
class Budget:
    """How long a generator is trained, and how fast it learns."""

    steps: int
    batch: int
    lr: float
    """Peak learning rate of AdamW."""
    ema: float = 0.0
    """Decay of the moving average of the weights, which is what is kept (0: the last weights)."""


def fit(
    network: nn.Module,
    loss_of: Loss,
    pictures: Pictures,
    checkpoint: Path,
    budget: Budget,
    report: Report | None = None,
) -> nn.Module:
    """Train `network`, in place, on random flipped batches; resumes from `checkpoint`.

    Step i sees the same batch and noise in every run. The stage that `report` hears of is the
    checkpoint's name. Returns the network in eval mode.
    """
    steps = budget.steps
    optimizer = torch.optim.AdamW(network.parameters(), lr=budget.lr, weight_decay=0.0)
    average = {k: v.clone() for k, v in network.state_dict().items()}
    start = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        average, start = saved["average"], saved["step"]
    network.train()
    for step in range(start, steps):
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(len(pictures), (budget.batch,), generator=generator)
        x0 = from_pictures(pictures[rows.numpy()])
        if step % 2:
            x0 = x0.flip(3)
        for group in optimizer.param_groups:
            factor = min(1.0, (step + 1) / 100, 0.02 + 2.0 * (1.0 - step / steps))
            group["lr"] = budget.lr * factor
        loss = loss_of(x0, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            rate = min(budget.ema, (1 + step) / (10 + step))
            for key, value in network.state_dict().items():
                average[key].lerp_(value, 1.0 - rate)
        if report is not None:
            report(checkpoint.stem, step + 1, steps, loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(),
                     "average": average, "step": step + 1}  # fmt: skip
            with whole_file(checkpoint) as file:
                torch.save(state, file)
    network.load_state_dict(average)
    return network.eval()


def adm_network(config: AdmTraining, side: int) -> AdmNoise:
    """The diffusion model, randomly set: ADM's blocks, with convolutions between resolutions."""
    heads = min(64, min(config.channels))
    return AdmNoise(
        build_unet(
            AdmConfig(
                config.channels, config.attention, layers=config.layers, head_channels=heads,
                learn_sigma=False, resblock_updown=False, image_size=side,
            )
        )
    )  # fmt: skip


def ddpm_loss(network: nn.Module) -> Loss:
    """`noise_loss` with t uniform."""
    alpha_bar = linear_alpha_bar().float()

    def loss(x0: Tensor, generator: torch.Generator) -> Tensor:
        t = torch.randint(len(alpha_bar), (len(x0),), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        return noise_loss(network, x0, eps, t, alpha_bar[t][:, None, None, None])

    return loss


def save_adm(network: AdmNoise, folder: Path) -> None:
    """Write a folder that `load_noise_source` reads."""
    network.unet.save_pretrained(folder)  # type: ignore[operator]
    schedule = {"num_train_timesteps": STEPS, "beta_schedule": "linear", "beta_start": BETA_START,
                "beta_end": BETA_END, "prediction_type": "epsilon"}  # fmt: skip
    (folder / "scheduler_config.json").write_text(json.dumps(schedule, indent=2) + "\n")


def noising_level(strength: float, steps: int) -> int:
    """How many of `steps` DDIM steps a strength in (0, 1] stands for: at least one."""
    if not 0.0 < strength <= 1.0:
        raise ValueError(f"strength is {strength}: give a share above 0 and at most 1")
    return max(1, round(strength * steps))


@torch.no_grad()
def sdedit(
    predict: Predict, x0: Tensor, alpha_bar: Tensor, count: int, steps: int, noise: Tensor
) -> Tensor:
    """Noise x0 up to the `count`th of `steps` levels and sample back (Meng et al. 2022).

    x0 and `noise` are [B, 3, H, W]; the result is in about [-1, 1].
    """
    path = path_down(alpha_bar, steps)[steps - count :]
    _, level, _ = path[0]
    return ddim(predict, add_noise(x0, noise, level), path)


def diffusion_fakes(
    source: NoiseSource, pictures: Pictures, strengths: Sequence[float], steps: int, seed: int
) -> tuple[Pictures, np.ndarray]:
    """A fake of every photograph, and its strength: strengths take turns. [N, S, S, 3], [N]."""
    given = np.array([strengths[i % len(strengths)] for i in range(len(pictures))], np.float32)
    fakes = np.empty_like(pictures)
    for strength in dict.fromkeys(strengths):
        rows = np.flatnonzero(given == np.float32(strength))
        for part in np.array_split(rows, max(1, len(rows) // 16)):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + int(part[0]))
            x0 = from_pictures(pictures[part])
            noise = torch.randn(x0.shape, generator=generator)
            count = noising_level(strength, steps)
            fakes[part] = to_pictures(
                sdedit(source.predict, x0, source.alpha_bar, count, steps, noise)
            )
    return fakes, given


class Vae(nn.Module):
    """A small variational autoencoder: [B, 3, S, S] -> latent [B, C, S/8, S/8] -> [B, 3, S, S]."""

    def __init__(self, config: CodecTraining) -> None:
        super().__init__()
        self.encode = _encoder(config.width, 2 * config.latent)
        self.decode = _decoder(config.width, config.latent)

    def forward(self, x0: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(reconstruction, KL divergence per pixel); without `noise` from the latent's mean."""
        mean, log_variance = self.encode(x0).clamp(-20, 20).chunk(2, dim=1)
        z = mean if noise is None else mean + (0.5 * log_variance).exp() * noise
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum()
        return self.decode(z), kl / x0.numel()

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """Squared error and a light divergence (Kingma & Welling 2014)."""
        side = x0.shape[-1] // 8
        latent = self.decode[0].in_channels
        noise = torch.randn((len(x0), int(latent), side, side), generator=generator)  # type: ignore[arg-type]
        again, kl = self(x0, noise)
        loss: Tensor = F.mse_loss(again, x0) + 1e-3 * kl
        return loss


class Vq(nn.Module):
    """A small vector-quantised autoencoder (van den Oord et al. 2017)."""

    def __init__(self, config: CodecTraining) -> None:
        super().__init__()
        self.encode = _encoder(config.width, config.latent)
        self.decode = _decoder(config.width, config.latent)
        self.codes = nn.Embedding(config.codes, config.latent)
        nn.init.normal_(self.codes.weight, std=0.5)

    def forward(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """(reconstruction, codebook and commitment loss)."""
        z = self.encode(x0).permute(0, 2, 3, 1)
        nearest = torch.cdist(z.flatten(0, 2), self.codes.weight).argmin(dim=1)
        code = self.codes(nearest).view(z.shape)
        fit = F.mse_loss(code, z.detach()) + 0.25 * F.mse_loss(z, code.detach())
        straight = z + (code - z).detach()
        return self.decode(straight.permute(0, 3, 1, 2)), fit

    def loss(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """Squared error, codebook and commitment."""
        again, fit = self(x0)
        loss: Tensor = F.mse_loss(again, x0) + fit
        return loss


@torch.no_grad()
def reconstructions(codec: nn.Module, pictures: Pictures) -> Pictures:
    """What an autoencoder makes of photographs [N, S, S, 3]."""
    parts = [from_pictures(pictures[i : i + 64]) for i in range(0, len(pictures), 64)]
    return np.concatenate([to_pictures(codec(part)[0]) for part in parts])


def _encoder(width: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, width), (width, 2 * width), (2 * width, 2 * width)):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(8, after),
                   nn.SiLU()]  # fmt: skip
    return nn.Sequential(*layers, nn.Conv2d(2 * width, out, 3, padding=1))


def _decoder(width: int, latent: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(latent, 2 * width, 3, padding=1), nn.SiLU()]
    for before, after in ((2 * width, 2 * width), (2 * width, width), (width, width)):
        layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1),
                   nn.GroupNorm(8, after), nn.SiLU()]  # fmt: skip
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1))
