"""Train the nano noise predictor: the DDPM objective at the first steps, on photographs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from distildire.data.manifest import REAL, ManifestError, fingerprint, read_manifests
from distildire.data.pictures import load_all
from distildire.distill.loss import noise_loss
from distildire.io.config import ConfigError, refuse_under
from distildire.io.pictures import RGB
from distildire.io.preprocessing import reflect_to
from distildire.noise.nano import NanoConfig, NanoNoise, save_nano
from distildire.noise.schedule import Predict, linear_alpha_bar, to_unit


@dataclass(frozen=True)
class NoiseConfig:
    """Options of `fit_noise`: `distildire train --config FILE` with `task: noise`."""

    name: str = "nano-noise"
    manifest: str = ""
    """Manifest whose real pictures are trained on."""
    split: str = "train"
    """Rows of this split are used; an empty string: all rows."""
    steps: int = 4000
    batch: int = 32
    patch: int = 64
    """Side of the training patches, in pixels."""
    lr: float = 1e-3
    """Peak learning rate of AdamW; one cosine cycle after a linear warm-up."""
    warmup: int = 200
    """Steps, fewer than `steps`, and not 1 (0: none)."""
    max_t: int = 15
    """Largest step trained on; half of every batch is at t = 0, the level that eps0 uses."""
    held_out: tuple[str, ...] = ()
    """Sources whose pictures only measure."""
    seed: int = 0
    network: NanoConfig = field(default_factory=NanoConfig)

    def __post_init__(self) -> None:
        refuse_under(self, steps=1, batch=1, patch=1, lr=0, warmup=0, max_t=0)
        if self.warmup == 1 or self.warmup >= self.steps:
            raise ConfigError(
                f"warmup is {self.warmup}: give fewer than steps ({self.steps}), but not 1"
            )


def fit_from_manifest(
    config: NoiseConfig, out: Path, *, log: Callable[[dict[str, float]], None] | None = None
) -> NanoNoise:
    """Train on the real pictures of `config.manifest`, all of which are held in memory.

    Raises:
        ManifestError: an unusable manifest, sources that it lacks, or no picture to train on or
            to measure by.
    """
    manifests = filter(None, [config.manifest])
    table = read_manifests(manifests, {config.split} if config.split else ())
    table = table[table["label"] == REAL]
    unknown = set(config.held_out) - set(table["source"])
    if unknown or not config.held_out:
        raise ManifestError(f"held_out: name sources of real pictures (unknown: {sorted(unknown)})")
    aside = table["source"].isin(config.held_out)
    trained, _ = load_all(table["path"][~aside].to_list())
    measured, _ = load_all(table["path"][aside].to_list())
    for what, images in (("trained on", trained), ("held out", measured)):
        if not images:
            raise ManifestError(f"{config.manifest}: of the real pictures {what} none can be read")
    data = {"train_images": len(trained), "fingerprint": fingerprint(table)}
    return fit_noise(trained, measured, config, out, log=log, provenance={"data": data})


def fit_noise(
    images: Sequence[RGB],
    held_out: Sequence[RGB],
    config: NoiseConfig,
    out: Path,
    *,
    log: Callable[[dict[str, float]], None] | None = None,
    provenance: dict[str, object] | None = None,
) -> NanoNoise:
    """Minimise `noise_loss` on random patches of `images`.

    Progress goes to `out`/metrics.jsonl and to `log`; the weights are written to `out` at
    the end, as an exponential moving average.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    alpha_bar = linear_alpha_bar().float()
    network = NanoNoise(config.network)
    network.set_components(sample_patches(images, 512, 96, rng))
    average = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998),  # type: ignore[no-untyped-call]
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.steps, pct_start=config.warmup / config.steps
    )
    started = time.monotonic()
    with (out / "metrics.jsonl").open("w") as metrics:
        for step in range(1, config.steps + 1):
            x0 = sample_patches(images, config.batch, config.patch, rng)
            t = torch.from_numpy(rng.integers(0, config.max_t + 1, config.batch))
            t[: config.batch // 2] = 0
            eps = torch.randn_like(x0)
            loss = noise_loss(network, x0, eps, t, alpha_bar[t][:, None, None, None])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
            if step % 250 == 0 or step == config.steps:
                row = {
                    "step": step,
                    "loss": loss.item(),
                    "eps_error_t0": eps_error(average.module, held_out, seed=1),
                    "seconds": round(time.monotonic() - started, 1),
                }
                metrics.write(json.dumps(row) + "\n")
                metrics.flush()
                if log is not None:
                    log(row)
    best = cast(NanoNoise, average.module)
    save_nano(best, out, training=asdict(config), final=row, **(provenance or {}))
    return best


def sample_patches(
    images: Sequence[RGB], count: int, side: int, rng: np.random.Generator
) -> Tensor:
    """Random patches, flipped and turned at random: float32 [count, 3, side, side] in [-1, 1]."""
    patches = np.empty((count, side, side, 3), np.uint8)
    for i, index in enumerate(rng.integers(0, len(images), count)):
        rgb = reflect_to(images[index], side)
        top = rng.integers(0, rgb.shape[0] - side + 1)
        left = rng.integers(0, rgb.shape[1] - side + 1)
        patch = np.rot90(rgb[top : top + side, left : left + side], int(rng.integers(0, 4)))
        patches[i] = patch[:, ::-1] if rng.integers(0, 2) else patch
    return to_unit(torch.from_numpy(patches).permute(0, 3, 1, 2))


@torch.no_grad()
def eps_error(
    predict: Predict, images: Sequence[RGB], *, t: int = 0, patches: int = 128, seed: int = 0
) -> float:
    """Mean squared error of the predicted noise at step `t` (1.0: no better than zero)."""
    rng = np.random.default_rng(seed)
    x0 = sample_patches(images, patches, 96, rng)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    level = float(linear_alpha_bar()[t])
    return float(noise_loss(predict, x0, eps, torch.full((patches,), t), level))
