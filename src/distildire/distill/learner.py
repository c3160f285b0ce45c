"""The student with its losses as one module, and how its weights move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distildire.distill.config import OptimConfig, TeacherConfig, TrainConfig
from distildire.distill.loss import (
    Projection,
    UncertaintyWeights,
    consistency_loss,
    distillation_loss,
    logit_kl,
    objective,
    smoothed,
)
from distildire.distill.networks import Networks, lesson, seen_of
from distildire.distill.student import Student
from distildire.distill.vit import VitBackbone

BODIES = ("student.backbone", "student.noise_backbone")
"""The modules of a `Learner` that `optim.body_lr` is for."""


class Learner(nn.Module):
    """Student, projection and loss as one module, so that a parallel wrapper sees one forward."""

    def __init__(
        self, student: Student, projection: Projection | None, teacher: TeacherConfig,
        optim: OptimConfig,
    ) -> None:  # fmt: skip
        super().__init__()
        self.student, self.projection = student, projection
        self.teacher, self.optim = teacher, optim
        self.balance = UncertaintyWeights() if teacher.adaptive and projection else None

    def forward(
        self, x0: Tensor, eps0: Tensor, labels: Tensor, target: Tensor | None,
        taught: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Losses by name; x0, eps0 [B, 3, H, W], labels [B].

        `target` is the teacher's map, `taught` its logits [B].
        """
        maps = self.student.forward_maps(x0, eps0)
        logits, feature_map = self.student.classify(maps), maps[-1]
        if self.projection is not None and target is not None:
            feature_map, target = self.projection(feature_map, target).float(), target.float()
        losses = distillation_loss(
            logits.float(), labels, feature_map, target, lambda_=self.teacher.lambda_,
            pos_weight=self.optim.pos_weight, imitation=self.teacher.imitation,
        )  # fmt: skip
        if self.balance is not None:
            losses["loss"] = self.balance(losses["bce"], losses["imitation"])
        if taught is not None:
            losses["logit_kl"] = logit_kl(logits.float(), taught.float())
        if self.optim.consistency:
            losses["consistency"] = consistency_loss(logits.float())
        losses["loss"] = objective(
            losses, kl=self.teacher.logits, consistency=self.optim.consistency
        )
        return losses


def losses_of(
    learner: nn.Module, networks: Networks, crops: Tensor, labels: Tensor,
    dire: Sequence[Tensor], config: TrainConfig,
) -> dict[str, Tensor]:  # fmt: skip
    """The learner's losses on crops uint8 [B, 3, S, S] with labels [B], as `clean_first` orders.

    `dire` holds their DIRE maps, bytes too, if any. `learner` may stand in a parallel wrapper.
    """
    learner.train()
    if config.optim.freeze_norm:
        freeze_norm(learner)
    if config.optim.body_lr == 0:
        for name, module in learner.named_modules():
            if name.endswith(BODIES):
                module.eval()  # else the batch statistics would move
    with torch.no_grad():
        seen = seen_of(networks, crops, dire)
        target, taught = lesson(networks.teacher, seen, config)
    smooth = smoothed(labels, config.optim.label_smoothing)
    losses: dict[str, Tensor] = learner(seen.x0, seen.noise, smooth, target, taught)
    return losses


def parameter_groups(learner: Learner, optim: OptimConfig) -> list[dict[str, Any]]:
    """Groups for AdamW: the backbone's rate falls from block to block towards the input.

    Vectors (biases, norms) have no weight decay. With `body_lr: 0` the backbones are frozen, with
    `frozen` its first blocks; what needs no gradient already stays so.
    """
    backbone = learner.student.backbone
    deep = backbone.depth_of if isinstance(backbone, VitBackbone) else None
    rates: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = optim.lr
        body = next((b for b in BODIES if name.startswith(f"{b}.")), None)
        if body is not None:
            rate = optim.lr if optim.body_lr < 0 else optim.body_lr
            if deep is not None:
                depth = deep(name.removeprefix(f"{body}."))
                rate *= optim.layer_decay ** (backbone.stage - depth)
                if 0 < optim.frozen >= depth:
                    rate = 0.0
            if rate == 0:
                parameter.requires_grad_(False)
                continue
        decay = optim.weight_decay if parameter.ndim > 1 else 0.0
        rates.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in rates.items()
    ]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Factor on the peak rate at `step`: linear warm-up, then a cosine to zero."""
    optim = config.optim
    total = max(1, optim.steps - optim.warmup)
    return rate_factor(step, optim.warmup, (step - optim.warmup) / total)


def rate_factor(step: int, warmup: int, gone: float) -> float:
    """Linear in the first `warmup` steps, then a cosine that ends at 0 once `gone` is 1."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + float(np.cos(np.pi * min(1.0, gone))))


def moving_average(student: Student, decay: float) -> torch.optim.swa_utils.AveragedModel:
    """Exponential moving average of weights and batch statistics, warmed up."""

    def update(old: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        # The decay grows with the number of updates, so that the start is forgotten.
        rate = min(decay, (1 + float(count)) / (10 + float(count)))
        for a, b in zip(old, new, strict=True):
            if a.is_floating_point():
                a.lerp_(b, 1.0 - rate)
            else:
                a.copy_(b)

    return torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.no_grad()(update), use_buffers=True
    )


def freeze_norm(learner: nn.Module) -> None:
    """Batch normalisation by the stored statistics instead of the batch's."""
    for module in learner.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
