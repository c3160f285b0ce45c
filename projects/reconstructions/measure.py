"""What pairs add to a head on a trained body, and which kinds of pairs resemble each other.

    PYTHONPATH=projects python -m reconstructions.measure MANIFEST --pairs OUT/pairs.csv \\
        --checkpoint best.pt --out OUT

Every seed draws other views; within a seed all heads see the same ones. Prints two tables and
writes `reconstructions.json`. What was seen stays in `OUT/features`: other pairs ask for another
folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from small_world.run import stage
from torch import Tensor
from torch.utils.data import DataLoader

from distildire.data.augment import augment
from distildire.data.manifest import FAKE, REAL, read_manifest
from distildire.data.ranking import auc
from distildire.data.stream import Draws, TrainingStream, Views, sampling_weights
from distildire.distill.checkpoint import load_checkpoint
from distildire.distill.config import TrainConfig
from distildire.distill.networks import unit_planes
from distildire.distill.student import Student
from distildire.distill.validation import score_table, validation_summary
from distildire.evaluate.metrics import tpr_at_fpr
from distildire.io.pictures import decode
from distildire.io.writing import make_folder, write_json

if TYPE_CHECKING:
    import pandas as pd

Features = NDArray[np.float32]
"""[N, columns]."""

Labels = NDArray[np.bool_]
"""[N], true for fakes."""

GROUPS = {
    "taef2": ("taef2",),
    "taesd, taesdxl, taesd3, taef1": ("taesd", "taesdxl", "taesd3", "taef1"),
    "plain": ("plain",),
    "vq": ("vq",),
    "SDEdit": ("sdedit",),
    "Real-ESRGAN": ("realesrgan",),
}
"""Kinds that are measured as one."""

AUTOENCODERS = list(GROUPS)[:4]

BASELINE = "ordinary views"


@dataclass(frozen=True)
class Looked:
    """What the body sees of pictures of `pairs.csv`, row by row."""

    rows: pd.DataFrame
    """With the columns pair, kind, repository."""
    x: Features

    def halves(self, kinds: Sequence[str]) -> tuple[Features, Labels, NDArray[np.int64]]:
        """Reconstructions of these kinds, each after its photograph: features, fake, pair."""
        place = {
            (p, k): i
            for i, (p, k) in enumerate(zip(self.rows["pair"], self.rows["kind"], strict=True))
        }
        fakes = np.flatnonzero(self.rows["kind"].isin(kinds).to_numpy())
        pairs = self.rows["pair"].to_numpy()[fakes]
        reals = np.array([place[p, REAL] for p in pairs], int)
        both = np.stack([reals, fakes], axis=1).ravel()
        return self.x[both], np.tile([False, True], len(fakes)), np.repeat(pairs, 2)

    def one_each(self) -> Looked:
        """Every photograph with one of its reconstructions, drawn at random."""
        kinds = self.rows["kind"]
        fakes = self.rows[kinds != REAL].groupby("pair").sample(1, random_state=0).index
        kept = np.union1d(np.flatnonzero(kinds == REAL), fakes)
        return Looked(self.rows.iloc[kept].reset_index(drop=True), self.x[kept])


def fit_head(x: Features, fake: Labels) -> Pipeline:
    """The linear head of `benchmarks/heads.py`."""
    head = LogisticRegression(C=0.003, max_iter=300)
    return make_pipeline(StandardScaler(), head).fit(x, fake)


def arms(looked: Looked) -> Iterator[tuple[str, Features, Labels]]:
    """Name, features and labels of what each head gets beside the ordinary views."""

    def fakes(groups: Sequence[str], of: Looked = looked) -> tuple[Features, Labels]:
        x, fake, _ = of.halves([kind for group in groups for kind in GROUPS[group]])
        return x, fake

    there = [g for g, kinds in GROUPS.items() if looked.rows["kind"].isin(kinds).any()]
    reals = (looked.rows["kind"] == REAL).to_numpy()
    yield BASELINE, looked.x[:0], np.zeros(0, bool)
    yield "the photographs alone", looked.x[reals], np.zeros(reals.sum(), bool)
    for group in there:
        yield group, *fakes([group])
    yield "one of these for each photograph", *fakes(there, looked.one_each())
    yield "all autoencoders", *fakes([g for g in there if g in AUTOENCODERS])
    rest = [g for g in there if g != "Real-ESRGAN"]
    yield "all but Real-ESRGAN", *fakes(rest)
    if rest != there:
        x, fake = fakes(["Real-ESRGAN"])
        yield "Real-ESRGAN as real", x, np.zeros_like(fake)
        yield "all", *fakes(there)
        others, label = fakes(rest)
        yield (
            "all, Real-ESRGAN as real",
            np.concatenate([others, x]),
            np.concatenate([label, np.zeros_like(fake)]),
        )


def across(
    looked: Looked, ordinary: tuple[Features, Labels], seed: int
) -> dict[str, dict[str, float]]:
    """AUC of telling the halves of each kind's pairs, by the kind that a head was fitted to.

    Fitted to the pairs alone of one half of the repositories, measured on the other's; the
    row `BASELINE` was fitted to `ordinary` views, features and labels, and met no pair.
    """
    names = np.unique(looked.rows["repository"])
    rng = np.random.default_rng(seed)
    learnt = set(rng.permutation(names)[: len(names) // 2])
    inside = looked.rows["repository"].isin(learnt).to_numpy()
    sides = [Looked(looked.rows[i].reset_index(drop=True), looked.x[i]) for i in (inside, ~inside)]
    there = {
        group: kinds
        for group, kinds in GROUPS.items()
        if all(side.rows["kind"].isin(kinds).any() for side in sides)
    }
    heads = {BASELINE: fit_head(*ordinary)}
    heads |= {group: fit_head(*sides[0].halves(kinds)[:2]) for group, kinds in there.items()}
    tests = {group: sides[1].halves(kinds) for group, kinds in there.items()}
    return {
        name: {group: auc(fake, head.decision_function(x)) for group, (x, fake, _) in tests.items()}
        for name, head in heads.items()
    }


class Body:
    """The trained body: crops to the tokens (class and mean patch) of the blocks that it taps."""

    def __init__(self, student: Student, config: TrainConfig) -> None:
        self.student, self.config = student.eval(), config
        self.side = config.preprocessing.crop
        halves = float(config.preprocessing.halves > 0)
        self.seen = replace(config.augment, half=halves)

    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Features:
        """Crops uint8 [N, 3, S, S] -> [N, columns]."""
        x0 = unit_planes(crops)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = self.student.pool(self.student.forward_maps(x0, x0))
        return pooled.float().numpy()

    def validation(self, val: pd.DataFrame) -> dict[str, Features]:
        """`x` of the middle piece of every row, as the detector sees it."""
        parts: list[Features] = []

        def keep(crops: Tensor) -> Tensor:
            parts.append(self(crops))
            return torch.zeros(len(crops))

        score_table(keep, val, self.config.preprocessing, workers=0)
        return {"x": np.concatenate(parts)}

    def ordinary(self, train: pd.DataFrame, draws: Draws) -> dict[str, Features]:
        """`x` and `fake` (0 or 1) of views as training draws them."""
        data = self.config.data
        weights = sampling_weights(
            train, power=data.power, max_share=data.max_share, pair_weight=data.pair_weight
        )
        stream = TrainingStream(train, weights, Views(self.side, self.seen), draws)
        views = [(self(crop), fake.numpy()) for crop, fake in DataLoader(stream, 50)]
        x, fake = (np.concatenate(part) for part in zip(*views, strict=True))
        return {"x": x, "fake": fake}

    def pairs(self, rows: pd.DataFrame, seed: int) -> dict[str, Features]:
        """`x` of one view of every row; all that belong to one pair get the same draws."""
        parts = []
        for start in range(0, len(rows), 50):
            part = rows[start : start + 50]
            crops = [
                augment([decode(p)], self.side, self.seen, np.random.default_rng((seed, pair)))[0]
                for p, pair in zip(part["path"], part["pair"], strict=True)
            ]
            parts.append(self(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)))
        return {"x": np.concatenate(parts)}


def summarise(
    runs: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]]
) -> dict[str, list[float]]:
    """Mean of each figure over seeds, mean and deviation of its difference to the baseline."""
    result = {}
    for key in runs[0]:
        values = np.array([run[key] for run in runs])
        apart = values - np.array([run[key] for run in base])
        deviation = apart.std(ddof=1) if len(apart) > 1 else float("nan")
        result[key] = [float(values.mean()), float(apart.mean()), float(deviation)]
    return result


def main() -> None:
    """Look once, fit all heads, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--pairs", type=Path, required=True, help="the table that make wrote")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--views", type=int, default=2400)
    parser.add_argument("--per-source", type=int, default=1000, help="validation pictures")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    import pandas as pd

    torch.set_num_threads(1)
    student, config, _ = load_checkpoint(args.checkpoint)
    body, kept = Body(student, config), args.out / "features"
    table, pairs = read_manifest(args.manifest), pd.read_csv(args.pairs)
    train = table[table["split"] == "train"].reset_index(drop=True)
    val = table[table["split"] == "val"].groupby(["source", "label"]).head(args.per_source)
    make_folder(kept)
    held_out = stage(kept / f"val-{args.per_source}.npz", partial(body.validation, val))["x"]
    rows: dict[str, list[dict[str, float]]] = {}
    matrices: list[pd.DataFrame] = []
    for seed in range(args.seeds):
        draws = Draws(args.views, seed=seed)
        views = stage(kept / f"views-{args.views}-{seed}.npz", partial(body.ordinary, train, draws))
        x = stage(kept / f"pairs-{seed}.npz", partial(body.pairs, pairs, seed))["x"]
        looked, ordinary = Looked(pairs, x), (views["x"], views["fake"] == 1)
        for name, more, fake in arms(looked):
            both = np.concatenate([ordinary[0], more]), np.concatenate([ordinary[1], fake])
            logits = fit_head(*both).decision_function(held_out)
            figures = validation_summary(val, logits)
            figures["tpr_at_5fpr"] = tpr_at_fpr(val["label"] == FAKE, logits, 0.05)
            rows.setdefault(name, []).append(figures)
            print(seed, name, {k: round(v, 3) for k, v in figures.items()}, flush=True)
        matrices.append(pd.DataFrame(across(looked, ordinary, seed)).T)
    heads = {name: summarise(runs, rows[BASELINE]) for name, runs in rows.items()}
    matrix = sum(matrices[1:], matrices[0]) / len(matrices)
    facts = {"views": args.views, "seeds": args.seeds, "validation": len(val),
             "pairs": pairs["kind"].value_counts().to_dict(),
             "heads": heads, "matrix": matrix.to_dict("index")}  # fmt: skip
    write_json(args.out / "reconstructions.json", facts)
    print(as_table(heads), matrix.round(3).to_string(), sep="\n\n")


def as_table(heads: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Markdown: the baseline's figures, and differences to it with their deviation over seeds."""
    keys = ("auc", "pairs", "worst_quarter", "tpr_at_5fpr")
    lines = [
        "| added to ordinary views | AUC | pairs | worst quarter | TPR at 5% |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, figures in heads.items():
        cells = [f"{figures[k][0]:.3f}" if name == BASELINE else
                 f"{figures[k][1]:+.3f} ± {figures[k][2]:.3f}" for k in keys]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
