"""Which pieces of a picture should a detector see? Several preprocessings of one checkpoint.

    python benchmarks/views.py MANIFEST --checkpoint runs/base/best.pt \
        --views 144,0,2,512 --views 192,0,1,448 --views 288,0,1,576,4

Each is side of a crop, native crops, crops at half size, largest short side, and the block after
which patches are merged (none: as the checkpoint was trained). The pictures are those of the split
`val`, equalised; the manifest's paths are relative to it. --checkpoint takes a model's name too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from distildire.data.manifest import read_manifest
from distildire.distill.config import network_of
from distildire.distill.networks import unit_planes
from distildire.distill.start import begin, read_trained
from distildire.distill.student import Student
from distildire.distill.validation import score_table, validation_summary
from distildire.distill.vit import VitBackbone
from distildire.io.preprocessing import Preprocessing


def main() -> None:
    """Score the pictures through every preprocessing that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--views", action="append", required=True)
    parser.add_argument("--per-source", type=int, default=20)
    args = parser.parse_args()
    table = read_manifest(args.manifest)
    val = table[table["split"] == "val"].groupby("source").head(args.per_source)
    student = Student(**network_of(read_trained(args.checkpoint).options)).eval()
    begin(student, args.checkpoint)
    backbone = student.backbone
    assert isinstance(backbone, VitBackbone)
    merge_after = backbone.merge_after

    @torch.no_grad()
    def score(crops: Tensor) -> Tensor:
        x0 = unit_planes(crops)
        with torch.autocast("cpu", torch.bfloat16):
            logits: Tensor = student(x0, x0)
        return logits.float()

    print(f"{len(val)} pictures of {val['repository'].nunique()} repositories\n")
    print(
        "| crop | native | at half size | short side | merged after | AUC | pairs | worst quarter |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for views in args.views:
        crop, crops, halves, short_side, *merged = (int(number) for number in views.split(","))
        backbone.merge_after = merged[0] if merged else merge_after
        preprocessing = Preprocessing(crop=crop, crops=crops, halves=halves, short_side=short_side)
        found = validation_summary(val, score_table(score, val, preprocessing))
        figures = " | ".join(f"{found[k]:.3f}" for k in ("auc", "pairs", "worst_quarter"))
        print(
            f"| {crop} | {crops} | {halves} | {short_side} | {backbone.merge_after} | {figures} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
