"""What is minimised: DistilDIRE's loss, its variants, and the noise predictor's."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distildire.noise.schedule import Level, Predict, add_noise

Imitation = Literal["mse", "kl"]
"""What the student imitates: the teacher's map, or its softened pooled channels."""


def distillation_loss(  # noqa: PLR0913
    logits: Tensor,
    labels: Tensor,
    student_map: Tensor,
    teacher_map: Tensor | None,
    *,
    lambda_: float,
    pos_weight: float = 1.0,
    imitation: Imitation = "mse",
) -> dict[str, Tensor]:
    """BCEWithLogits(logit, y) + lambda MSE(student_map, teacher_map) (paper, eq. 4).

    Args:
        logits: [B].
        labels: [B] float, fake = 1.
        student_map: [B, C, h, w].
        teacher_map: of the same shape; without a teacher, None: the BCE alone.
        lambda_: weight of the imitation; 1 in the authors' code.
        pos_weight: weight of the fakes in the BCE (0.5 in the authors' code).
        imitation: what `imitation` measures: the MSE, or `softened_kl` in its place.

    Returns:
        Scalars `loss`, `bce`, `imitation` (zero without a teacher).
    """
    bce = F.binary_cross_entropy_with_logits(
        logits, labels, pos_weight=logits.new_tensor(pos_weight)
    )
    if teacher_map is None:
        return {"loss": bce, "bce": bce, "imitation": torch.zeros_like(bce)}
    distance = softened_kl if imitation == "kl" else F.mse_loss
    imitated = distance(student_map, teacher_map)
    return {"loss": bce + lambda_ * imitated, "bce": bce, "imitation": imitated}


def smoothed(labels: Tensor, share: float) -> Tensor:
    """(1 - share) y + share / 2 for labels y [B] in 0..1 (Szegedy et al. 2016, section 7)."""
    return labels * (1 - share) + share / 2


def mixed_labels(labels: Tensor, teacher: Tensor, weight: float) -> Tensor:
    """(1 - s) y + s sigmoid(teacher) with s = weight / (1 + weight), in 0..1 (Hinton et al. 2015).

    Labels y [B] in 0..1 and the teacher's logits [B] as one target [B]: cross entropy to it has
    the gradient of BCE + weight `logit_kl`, divided by 1 + weight.
    """
    share = weight / (1 + weight)
    return (1 - share) * labels + share * torch.sigmoid(teacher)


def consistency_loss(logits: Tensor) -> Tensor:
    """Mean squared difference of the logits [2B] of clean views and of their degraded twins."""
    clean, degraded = logits.chunk(2)
    return F.mse_loss(clean, degraded)


def logit_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the two classes, from logits [B] each (Hinton et al. 2015)."""
    p = torch.sigmoid(teacher)
    entropy = -(p * F.logsigmoid(teacher) + (1 - p) * F.logsigmoid(-teacher)).mean()
    return F.binary_cross_entropy_with_logits(student, p) - entropy


def objective(losses: dict[str, Tensor], *, kl: float, consistency: float) -> Tensor:
    """What a step minimises: loss + kl logit_kl + consistency consistency_loss, a scalar.

    Args:
        losses: scalars by name: `loss` of the distillation; `logit_kl` and `consistency` add
            nothing where they are missing.
        kl: weight of `logit_kl`.
        consistency: weight of `consistency`.
    """
    total = losses["loss"]
    for name, weight in (("logit_kl", kl), ("consistency", consistency)):
        if name in losses:
            total = total + weight * losses[name]
    return total


def softened_kl(student_map: Tensor, teacher_map: Tensor, temperature: float = 4.0) -> Tensor:
    """T^2 KL(teacher || student) of softened class scores (Hinton et al. 2015), a scalar.

    The teacher has no classifier of real and fake: the pooled channels [B, C] of its map, on
    which any linear classifier of it would rest, are the scores that are softened.
    """
    student = F.log_softmax(student_map.mean(dim=(2, 3)) / temperature, dim=1)
    teacher = F.log_softmax(teacher_map.mean(dim=(2, 3)) / temperature, dim=1)
    kl = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return temperature**2 * kl


def noise_loss(predict: Predict, x0: Tensor, eps: Tensor, t: Tensor, alpha_bar_t: Level) -> Tensor:
    """E |eps - predict(x_t, t)|^2 for x_t = `add_noise`(x0, eps) (Ho et al. 2020, eq. 14).

    x0 and eps [B, 3, H, W], t [B] int64; the mean over all, a scalar.
    """
    return F.mse_loss(predict(add_noise(x0, eps, alpha_bar_t), t), eps)


class UncertaintyWeights(nn.Module):
    """A learned lambda: both losses weighted by how noisy they prove (Kendall et al. 2018, eq. 10).

    loss = exp(-s) bce + exp(-r) imitation / 2 + (s + r) / 2, where s and r are log variances.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, bce: Tensor, imitation: Tensor) -> Tensor:
        """Two scalars -> the weighted sum."""
        s, r = self.log_variance
        loss: Tensor = (-s).exp() * bce + 0.5 * (-r).exp() * imitation + 0.5 * (s + r)
        return loss

    @property
    def lambda_(self) -> float:
        """What it stands for now: the weight of the imitation over that of the BCE."""
        s, r = self.log_variance.tolist()
        return 0.5 * math.exp(s - r)


class Projection(nn.Module):
    """Bring the student's map to the teacher's channels and size (identity where they agree)."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        same = student_channels == teacher_channels
        self.project = nn.Identity() if same else nn.Conv2d(student_channels, teacher_channels, 1)

    def forward(self, student_map: Tensor, teacher_map: Tensor) -> Tensor:
        """[B, Cs, h, w] -> [B, Ct, H, W], the shape of `teacher_map`."""
        projected: Tensor = self.project(student_map)
        if projected.shape[-2:] != teacher_map.shape[-2:]:
            projected = F.interpolate(
                projected, teacher_map.shape[-2:], mode="bilinear", align_corners=False
            )
        return projected
