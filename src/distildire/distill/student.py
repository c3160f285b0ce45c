"""The student: one logit from an image and its first-step noise."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from distildire.distill.backbones import Backbone

Inputs = Literal["both", "image", "noise"]
"""What the student sees: cat(x0, eps0) as in the paper, or one of the two."""


class Student(  # type: ignore[call-arg]  # the mixin's own options
    nn.Module,
    PyTorchModelHubMixin,  # type: ignore[misc]
    library_name="distildire",
    tags=["generated-image-detection"],
):
    """Backbone on cat(x0, eps0), global average pool, one linear unit (fake = 1).

    `save_pretrained` and `from_pretrained` write and read plain safetensors with a
    config.json, on disk or on the Hugging Face hub.
    """

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
        # Who loads saved weights has no use for the backbone's own.
        saved: dict[str, Any] = getattr(self, "_hub_mixin_config", None) or {}
        self._hub_mixin_config = {**saved, "pretrained": False}
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
