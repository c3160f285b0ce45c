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

Fusion = Literal["concat", "separate"]
"""How image and noise meet: in the first convolution as in the paper, or each in a backbone of
its own, whose maps are joined channel by channel."""


class Student(nn.Module):
    """Backbone on cat(x0, eps0), global average pool, one linear unit (fake = 1)."""

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        stage: int = 4,
        inputs: Inputs = "both",
        fusion: Fusion = "concat",
        pretrained: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if inputs not in get_args(Inputs):
            raise ValueError(f"inputs is {inputs!r}: use one of {', '.join(get_args(Inputs))}")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion is {fusion!r}: use one of {', '.join(get_args(Fusion))}")
        self.inputs = inputs
        joined = inputs == "both" and fusion == "concat"
        self.backbone = Backbone(
            backbone, stage=stage, in_chans=6 if joined else 3, pretrained=pretrained
        )
        self.noise_backbone: Backbone | None = None
        if inputs == "both" and fusion == "separate":
            self.noise_backbone = Backbone(backbone, stage=stage, pretrained=pretrained)
        self.channels = self.backbone.channels * (2 if self.noise_backbone is not None else 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.channels, 1)
        nn.init.zeros_(self.head.weight)  # pretrained maps are large: start at p = 0.5

    def forward_map(self, x0: Tensor, eps0: Tensor) -> Tensor:
        """x0 in [-1, 1] and eps0, both [B, 3, H, W] -> feature map [B, C, h, w]."""
        if self.noise_backbone is not None:
            return torch.cat([self.backbone(x0), self.noise_backbone(eps0)], dim=1)
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
