"""One method, one seed: train the student on pairs, score every test set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distildire.bench.flops import count_torch
from distildire.bench.worker import median_seconds
from distildire.calibration import sigmoid
from distildire.data.ranking import auc
from distildire.distill.backbones import Backbone
from distildire.distill.config import OptimConfig, TeacherConfig
from distildire.distill.learner import Learner
from distildire.distill.loss import Projection
from distildire.distill.student import Student
from distildire.distill.symptoms import symptoms
from distildire.evaluate.metrics import accuracies, average_precision
from distildire.noise.schedule import to_unit
from distildire.noise.source import NoiseSource
from small_world.config import MethodSpec, StudentTraining
from small_world.generators import from_pictures
from small_world.pictures import Pictures


@dataclass(frozen=True)
class Maps:
    """Pictures with what a diffusion model says of them."""

    pictures: Pictures
    eps0: NDArray[np.float16]
    """[N, 3, S, S]."""
    dire: NDArray[np.uint8]
    """[N, 3, S, S]; 255 stands for a difference of 2."""

    def batch(self, rows: NDArray[np.int64], flip: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """(x0, eps0, DIRE in [-1, 1]) of these rows, all flipped alike."""
        parts = (
            from_pictures(self.pictures[rows]),
            torch.from_numpy(self.eps0[rows]).float(),
            to_unit(torch.from_numpy(self.dire[rows])),
        )
        x0, eps0, dire = (part.flip(3) if flip else part for part in parts)
        return x0, eps0, dire

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True)
class Sets:
    """What every method learns from, and is judged on."""

    train: Mapping[str, Maps]
    """`real` and `fake`, of which row i is made from row i."""
    tests: Mapping[str, Maps]
    """`real`, `fake` and unseen families, all fakes but `real`."""
    strengths: NDArray[np.float32]
    """Of the rows of `tests["fake"]`."""


def run_method(
    spec: MethodSpec,
    training: StudentTraining,
    sets: Sets,
    seed: int,
    report: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train and score.

    Args:
        spec: the method.
        training: the budget.
        sets: the pictures.
        seed: of the initialisation and the batches.
        report: hears of each row of the history.

    Returns:
        `history` (rows of step, loss, bce, imitation), `scores` by family (acc, ap, auc),
        `by_strength` (auc), `symptoms`, `seconds_a_step`.
    """
    torch.manual_seed(seed)
    learner, teacher = build(spec, training)
    started = perf_counter()
    batches = _pairs(sets.train, training, seed)
    history = _train(learner, teacher, spec, training, batches, report)
    seconds = (perf_counter() - started) / training.steps
    logits = {name: _logits(learner.student, spec, maps) for name, maps in sets.tests.items()}
    real = logits.pop("real")
    scores = {name: _figures(real, fake) for name, fake in logits.items()}
    by_strength = {
        f"{strength:g}": _figures(real, logits["fake"][sets.strengths == strength])["auc"]
        for strength in np.unique(sets.strengths)
    }
    return {
        "method": spec.name, "seed": seed, "history": history, "scores": scores,
        "by_strength": by_strength, "seconds_a_step": seconds,
        "lambda": learner.balance.lambda_ if learner.balance is not None else spec.lambda_,
        "symptoms": symptoms(
            history,
            {"diffusion": scores["fake"]["auc"], "gan": scores.get("gan", {}).get("auc", 1.0)},
        ),
    }  # fmt: skip


def build(spec: MethodSpec, training: StudentTraining) -> tuple[Learner, nn.Module | None]:
    """(student with its projection and loss, frozen teacher) of a method."""
    student = Student(
        spec.backbone or training.backbone, stage=spec.stage or training.stage,
        inputs=spec.inputs, fusion=spec.fusion,
    )  # fmt: skip
    teacher, projection = None, None
    if spec.teacher:
        teacher = Backbone(
            training.teacher, stage=training.teacher_stage, pretrained=training.teacher_pretrained
        )
        teacher = teacher.eval().requires_grad_(False)
        projection = Projection(student.channels, teacher.channels)
    how = TeacherConfig(
        lambda_=spec.lambda_, adaptive=spec.adaptive, imitation=spec.imitation,
        backbone=training.teacher if spec.teacher else "",
    )  # fmt: skip
    return Learner(student, projection, how, OptimConfig()), teacher


def _pairs(
    train: Mapping[str, Maps], training: StudentTraining, seed: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(x0, eps0, DIRE) of every step: half a batch of photographs, then their fakes."""
    rng = np.random.default_rng(seed)
    for _ in range(training.steps):
        # Both of a pair, so that what a picture shows is no cue.
        rows = rng.choice(len(train["real"]), training.batch // 2, replace=False)
        flip = bool(rng.random() < 0.5)
        parts = zip(train["real"].batch(rows, flip), train["fake"].batch(rows, flip), strict=True)
        x0, eps0, dire = (torch.cat(part) for part in parts)
        yield x0, eps0, dire


def _train(
    learner: Learner, teacher: nn.Module | None, spec: MethodSpec, training: StudentTraining,
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    report: Callable[[dict[str, float]], None] | None,
) -> list[dict[str, float]]:  # fmt: skip
    optimizer = torch.optim.AdamW(
        learner.parameters(), lr=training.lr, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.lr, training.steps, pct_start=0.1
    )
    labels = torch.tensor([0.0, 1.0]).repeat_interleave(training.batch // 2)
    history: list[dict[str, float]] = []
    learner.train()
    for step, (x0, eps0, dire) in enumerate(batches, start=1):
        target = None
        if teacher is not None:
            with torch.no_grad():
                target = teacher(dire if spec.teacher == "dire" else x0)
        losses = learner(x0, dire if spec.inputs == "dire" else eps0, labels, target)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        row = {"step": float(step), **{name: value.item() for name, value in losses.items()}}
        history.append(row)
        if report is not None:
            report(row)
    return history


@torch.no_grad()
def _logits(student: Student, spec: MethodSpec, maps: Maps) -> NDArray[np.float64]:
    student.eval()
    parts = []
    for rows in np.array_split(np.arange(len(maps)), max(1, len(maps) // 64)):
        x0, eps0, dire = maps.batch(rows)
        parts.append(student(x0, dire if spec.inputs == "dire" else eps0).double().numpy())
    return np.concatenate(parts)


def _figures(real: NDArray[np.float64], fake: NDArray[np.float64]) -> dict[str, float]:
    labels = np.concatenate([np.zeros(len(real), bool), np.ones(len(fake), bool)])
    logits = np.concatenate([real, fake])
    probability = sigmoid(np.clip(logits, -60, 60))
    return {
        "acc": accuracies(labels, probability)[0],
        "ap": average_precision(labels, logits),
        "auc": auc(labels, logits),
    }


def cost(
    spec: MethodSpec, training: StudentTraining, source: NoiseSource, side: int
) -> dict[str, float]:
    """FLOPs counted and seconds measured for one verdict, decoding left out."""
    student = build(spec, training)[0].student.eval()
    shape = (1, 3, side, side)
    x0 = torch.zeros(shape)
    t = torch.zeros(1, dtype=torch.int64)
    unet = count_torch(source.network, shape, (1,))
    with torch.no_grad():
        one_pass = median_seconds(lambda: source.predict(x0, t))
        classify = median_seconds(lambda: student(x0, x0))
    return {
        "flops": float(spec.passes * unet + count_torch(student, shape, shape)),
        "seconds": spec.passes * one_pass + classify,
        "params": float(sum(p.numel() for p in student.parameters())),
    }
