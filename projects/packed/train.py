"""Train a student on packed pictures, views and all on one GPU, for a given time.

    PYTHONPATH=projects python -m packed.train PARTS... --config CONFIG --out RUN --seconds 240

What `distildire train` does with the same config, but that the learning rate falls with the clock
and the views come from `packed.views`. RUN/best.pt is a checkpoint as any other.
"""

from __future__ import annotations

import argparse
import io
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from distildire.data.manifest import FAKE
from distildire.data.stream import sampling_weights
from distildire.distill.checkpoint import save
from distildire.distill.config import DataConfig, TrainConfig
from distildire.distill.learner import (
    Learner,
    losses_of,
    moving_average,
    parameter_groups,
    rate_factor,
)
from distildire.distill.lora import merged
from distildire.distill.networks import Networks, build_networks, seen_of
from distildire.distill.run_log import RunLog
from distildire.distill.train import keep_best
from distildire.distill.validation import Validation, validation_summary
from distildire.io.config import load_config, to_dict
from distildire.io.preprocessing import crop_corners
from distildire.io.writing import whole_file, write_json
from packed.views import STORED, ViewMaker

Images = NDArray[np.uint8]

VIEWS = 2
"""Crops of a picture in validation, `halves` of the detector."""


def _unpacked(image: bytes) -> Images:
    with Image.open(io.BytesIO(image)) as picture:
        return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def read_parts(parts: list[Path]) -> tuple[pd.DataFrame, Images]:
    """The rows of all parts, and their pictures [N, 3, 256, 256]; decoded once, then kept."""
    tables, images = [], []
    for part in parts:
        table, kept = pd.read_parquet(part), part.with_suffix(".npy")
        if not kept.is_file():
            with ProcessPoolExecutor() as pool:
                decoded = np.stack(list(pool.map(_unpacked, table["image"], chunksize=64)))
            with whole_file(kept) as file:
                np.save(file, decoded)
        tables.append(table.drop(columns="image"))
        images.append(np.load(kept))
    return pd.concat(tables, ignore_index=True), np.concatenate(images)


@torch.no_grad()
def held_out_logits(
    student: torch.nn.Module, networks: Networks, stored: Tensor, crop: int
) -> Tensor:
    """Mean logit [N] of stored uint8 [N, 3, 256, 256] over the views of `Preprocessing.halves`."""
    student.eval()
    side = round(stored.shape[-1] * 0.5 / STORED)
    corners = crop_corners(side, side, crop, VIEWS)
    found = []
    for batch in stored.split(250):
        half = F.interpolate(batch.float(), [side] * 2, mode="bicubic", antialias=True)
        half = half.round().clamp(0, 255).to(torch.uint8)
        logits = 0
        for top, left in corners:
            seen = seen_of(networks, half[:, :, top : top + crop, left : left + crop], [])
            logits = logits + student(seen.x0, seen.noise).float() / VIEWS
        found.append(logits)
    return torch.cat(found)


@dataclass(frozen=True)
class Pictures:
    """All pictures and what is drawn from them, on one device."""

    stored: Tensor
    """uint8 [N, 3, 256, 256]."""
    fake: Tensor
    """[N], 1.0 for generated."""
    rows: Tensor
    """Of those that are trained on."""
    weights: Tensor
    """How likely each of `rows` is drawn."""
    val: pd.DataFrame
    """The rows that are validated on."""
    val_rows: Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(pictures, labels) of a batch."""
        drawn = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        at = self.rows[drawn]
        return self.stored[at], self.fake[at]


def pictures_on(
    device: torch.device, table: pd.DataFrame, images: Images, config: DataConfig
) -> Pictures:
    """The pictures of both splits, all of them on the device for good."""
    rows = np.flatnonzero(table["split"] == config.split)
    held_out = np.flatnonzero(table["split"] == config.val_split)
    weights = sampling_weights(
        table.iloc[rows].reset_index(drop=True), power=config.power,
        max_share=config.max_share, pair_weight=config.pair_weight,
    )  # fmt: skip
    return Pictures(
        stored=torch.from_numpy(images).to(device),
        fake=torch.from_numpy((table["label"] == FAKE).to_numpy(copy=True)).float().to(device),
        rows=torch.from_numpy(rows).to(device),
        weights=torch.from_numpy(weights).to(device),
        val=table.iloc[held_out].reset_index(drop=True),
        val_rows=torch.from_numpy(held_out).to(device),
    )


def validated(
    student: torch.nn.Module, networks: Networks, pictures: Pictures, config: TrainConfig
) -> Validation:
    """Scores of the held-out pictures, and their figures."""
    with torch.autocast(pictures.stored.device.type, torch.bfloat16):
        stored = pictures.stored[pictures.val_rows]
        logits = held_out_logits(student, networks, stored, config.preprocessing.crop)
    found = logits.double().cpu().numpy()
    return Validation(pictures.val, found, validation_summary(pictures.val, found))


def run(
    config: TrainConfig, table: pd.DataFrame, images: Images, out: Path, seconds: float, *,
    validations: int = 6,
) -> dict[str, float]:  # fmt: skip
    """Train for `seconds` and return the figures of the best validation."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    optim = config.optim
    torch.manual_seed(optim.seed)
    torch.set_float32_matmul_precision("high")
    pictures = pictures_on(device, table, images, config.data)
    networks = build_networks(config, device)
    for module in networks.student.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = device.type == "cuda"
    learner = Learner(networks.student, networks.projection, config.teacher, optim).to(device)
    optimizer = torch.optim.AdamW(parameter_groups(learner, optim), fused=device.type == "cuda")
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = moving_average(learner.student, optim.ema)
    generator = torch.Generator(device).manual_seed(optim.seed)
    make = ViewMaker(config.preprocessing.crop, config.augment, generator)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", to_dict(config), indent=2)
    writer = RunLog(out, lambda row: print(row, flush=True))

    best: dict[str, float] = {"choice": -1.0}
    began, step, checks = time.monotonic(), 0, 0
    while True:
        gone = (time.monotonic() - began) / seconds
        if gone >= (checks + 1) / validations:
            checks += 1
            found = validated(average.module, networks, pictures, config)
            writer({"step": step, "seconds": time.monotonic() - began,
                    **{f"val_{k}": v for k, v in found.summary.items()}})  # fmt: skip
            kept = replace(config, optim=replace(optim, steps=step))
            state = {"student": merged(average.module.state_dict())}
            save(out / "last.pt", state, kept, step=step, validation=found.summary)
            if found.summary["choice"] > best["choice"]:
                best = found.summary | {"step": step}
                keep_best(out, average.module, kept, step, found)
            if checks == validations:
                break
        factor = rate_factor(step, optim.warmup, gone)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        stored, label = pictures.draw(optim.batch, generator)
        crops = make(stored)
        with torch.autocast(device.type, torch.bfloat16):
            losses = losses_of(learner, networks, crops, label, [], config)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(learner.student)
        step += 1
        if step % optim.report_every == 0:
            writer({"step": step, **{k: float(v.detach()) for k, v in losses.items()},
                    "seconds_a_step": (time.monotonic() - began) / step})  # fmt: skip
    writer.close()
    return best


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", type=Path, nargs="+")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = load_config(TrainConfig, args.config, args.set)
    print(run(config, *read_parts(args.parts), args.out, args.seconds))


if __name__ == "__main__":
    main()
