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
from dataclasses import replace
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
from distildire.distill.config import TrainConfig
from distildire.distill.learner import Learner, freeze_norm, moving_average, parameter_groups
from distildire.distill.networks import Networks, build_networks, lesson, seen_of
from distildire.distill.run_log import RunLog
from distildire.distill.validation import validation_summary
from distildire.io.config import load_config, to_dict
from distildire.io.writing import whole_file, write_json
from packed.views import STORED, ViewMaker

Images = NDArray[np.uint8]


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
    """Mean logit over the two views that `Preprocessing(halves=2)` would cut."""
    student.eval()
    side = round(stored.shape[-1] * 0.5 / STORED)
    found = []
    for batch in stored.split(250):
        half = F.interpolate(batch.float(), [side] * 2, mode="bicubic", antialias=True)
        half = half.round().clamp(0, 255).to(torch.uint8)
        logits = 0
        for share in (0.5, 0.2):
            at = round(share * (side - crop))
            seen = seen_of(networks, half[:, :, at : at + crop, at : at + crop], [])
            logits = logits + student(seen.x0, seen.noise).float() / 2
        found.append(logits)
    return torch.cat(found)


def run(
    config: TrainConfig, table: pd.DataFrame, images: Images, out: Path, seconds: float, *,
    validations: int = 6,
) -> dict[str, float]:  # fmt: skip
    """Train for `seconds` and return the figures of the best validation."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    optim = config.optim
    torch.manual_seed(optim.seed)
    torch.set_float32_matmul_precision("high")
    stored = torch.from_numpy(images)
    rows = np.flatnonzero(table["split"] == config.data.split)
    held_out = np.flatnonzero(table["split"] == config.data.val_split)
    val = table.iloc[held_out].reset_index(drop=True)
    train_rows = torch.from_numpy(rows).to(device)
    stored = stored.to(device)
    weights = torch.from_numpy(
        sampling_weights(
            table.iloc[rows].reset_index(drop=True), power=config.data.power,
            max_share=config.data.max_share, pair_weight=config.data.pair_weight,
        )
    ).to(device)  # fmt: skip
    fake = torch.from_numpy((table["label"] == FAKE).to_numpy(copy=True)).float().to(device)

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
            with torch.autocast(device.type, torch.bfloat16):
                logits = held_out_logits(
                    average.module, networks, stored[torch.from_numpy(held_out).to(device)],
                    config.preprocessing.crop,
                )  # fmt: skip
            found = validation_summary(val, logits.double().cpu().numpy())
            writer({"step": step, "seconds": time.monotonic() - began,
                    **{f"val_{k}": v for k, v in found.items()}})  # fmt: skip
            kept = replace(config, optim=replace(optim, steps=step))
            state = {"student": average.module.state_dict()}
            names = ["last.pt"]
            if found["choice"] > best["choice"]:
                best = found | {"step": step}
                names.append("best.pt")
                val.assign(logit=logits.cpu().numpy()).to_csv(out / "val_scores.csv", index=False)
            for name in names:
                save(out / name, state, kept, step=step, validation=found)
            if checks == validations:
                break
            learner.train()
        warm = min(1.0, (step + 1) / max(1, optim.warmup))
        factor = warm * 0.5 * (1 + np.cos(np.pi * min(1.0, gone)))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        learner.train()
        if optim.freeze_norm:
            freeze_norm(learner)
        drawn = torch.multinomial(weights, optim.batch, replacement=True, generator=generator)
        at = train_rows[drawn]
        label = fake[at]
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            with torch.autocast(device.type, enabled=False):
                crops = make(stored[at])
            seen = seen_of(networks, crops, [])
            target, taught = lesson(networks.teacher, seen, config)
        smooth = label * (1 - optim.label_smoothing) + optim.label_smoothing / 2
        with torch.autocast(device.type, torch.bfloat16):
            losses = learner(seen.x0, seen.noise, smooth, target, taught)
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
