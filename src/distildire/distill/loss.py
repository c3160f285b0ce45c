"""The loss of DistilDIRE: classify, and imitate the teacher's feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def distillation_loss(
    logits: Tensor,
    labels: Tensor,
    student_map: Tensor,
    teacher_map: Tensor | None,
    *,
    weight: float,
    pos_weight: float = 1.0,
) -> dict[str, Tensor]:
    """BCEWithLogits(logit, y) + weight * MSE(student_map, teacher_map) (paper, eq. 4).

    Args:
        logits: [B]; labels: [B] float, fake = 1.
        student_map, teacher_map: [B, C, h, w] of one shape; no teacher: the BCE alone.
        weight: lambda of the paper.
        pos_weight: weight of the fakes in the BCE (0.5 in the authors' code).

    Returns:
        Scalars `loss`, `bce`, `mse` (`mse` is zero without a teacher).
    """
    bce = F.binary_cross_entropy_with_logits(
        logits, labels, pos_weight=logits.new_tensor(pos_weight)
    )
    if teacher_map is None:
        return {"loss": bce, "bce": bce, "mse": torch.zeros_like(bce)}
    mse = F.mse_loss(student_map, teacher_map)
    return {"loss": bce + weight * mse, "bce": bce, "mse": mse}


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
