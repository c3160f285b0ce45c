"""The student: one logit from an image and its first-step noise."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from distildire.distill.backbones import Backbone

Inputs = Literal["both", "image", "noise", "dire"]
"""What the student sees: cat(x0, eps0) as in the paper, one of the two, or DIRE alone.

DIRE, scaled to [-1, 1], is given in the place of eps0: the baseline of Wang et al. 2023.
"""


class Student(nn.Module):
    """Backbone on cat(x0, eps0), global average pool, one linear unit (fake = 1)."""

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        stage: int = 4,
        inputs: Inputs = "both",
        pretrained: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if inputs not in get_args(Inputs):
            raise ValueError(f"inputs is {inputs!r}: use one of {', '.join(get_args(Inputs))}")
        self.inputs = inputs
        self.backbone = Backbone(
            backbone, stage=stage, in_chans=6 if inputs == "both" else 3, pretrained=pretrained
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.backbone.channels, 1)
        nn.init.zeros_(self.head.weight)  # pretrained maps are large: start at p = 0.5

    def forward_map(self, x0: Tensor, eps0: Tensor) -> Tensor:
        """x0 in [-1, 1] and eps0, both [B, 3, H, W] -> feature map [B, C, h, w]."""
        if self.inputs == "both":
            return self.backbone(torch.cat([x0, eps0], dim=1))  # type: ignore[no-any-return]
        return self.backbone(x0 if self.inputs == "image" else eps0)  # type: ignore[no-any-return]

    def classify(self, feature_map: Tensor) -> Tensor:
        """Feature map [B, C, h, w] -> logits [B]."""
        logits: Tensor = self.head(self.dropout(feature_map.mean(dim=(2, 3))))
        return logits[:, 0]

    def forward(self, x0: Tensor, eps0: Tensor) -> Tensor:
        """x0 in [-1, 1] and eps0, both [B, 3, H, W] -> logits [B]; positive means fake."""
        return self.classify(self.forward_map(x0, eps0))
