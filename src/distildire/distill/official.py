"""The DistilDIRE authors' student checkpoints: a ResNet-50 on image and eps0, one logit.

Their `.pth` holds `{"model": {"student_backbone.conv1.weight", ...,
"student_head.2.weight", ...}, "optimizer": ...}`, possibly with `module.` before each key.
The backbone's keys are torchvision's, which timm's resnet50 shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distildire.noise.weights import WeightsError, count_keys, read_checkpoint

BACKBONE, HEAD = "student_backbone.", "student_head.2."


class OfficialStudent(nn.Module):
    """ResNet-50 with a six-channel first convolution, pooled to one logit (fake = 1)."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.backbone: Any = timm.create_model(
            "resnet50", pretrained=False, in_chans=6, num_classes=0, global_pool=""
        )
        self.head = nn.Linear(2048, 1)

    def forward_maps(self, x0: Tensor, eps0: Tensor) -> list[Tensor]:
        """x0, eps0 [B, 3, H, W] -> the feature map [B, 2048, H / 32, W / 32]."""
        return [self.backbone(torch.cat([x0, eps0], dim=1))]

    def forward(self, x0: Tensor, eps0: Tensor) -> Tensor:
        """x0 in [-1, 1] and its first-step noise eps0, both [B, 3, H, W] -> logits [B]."""
        logits: Tensor = self.head(self.forward_maps(x0, eps0)[0].mean(dim=(2, 3)))
        return logits[:, 0]


def is_official(content: Mapping[str, Any]) -> bool:
    """Whether an opened checkpoint is in the authors' form."""
    model = content.get("model")
    return isinstance(model, Mapping) and any(
        str(key).removeprefix("module.").startswith(BACKBONE) for key in model
    )


def read_official(path: str | Path) -> OfficialStudent:
    """Read the authors' `.pth`; the optimiser's state is dropped.

    Raises:
        WeightsError: damaged file, a pickle that wants to run code, another form, or keys
            that don't fit (each named).
    """
    content = read_checkpoint(path)
    if not is_official(content):
        raise WeightsError(
            f"{path}: not a DistilDIRE student (no 'model' with {BACKBONE}... keys; it holds "
            f"{', '.join(map(str, list(content)[:4]))})"
        )
    state = {
        str(key).removeprefix("module."): value
        for key, value in content["model"].items()
        if isinstance(value, Tensor)
    }
    stem = state.get(f"{BACKBONE}conv1.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
        raise WeightsError(
            f"{path}: its first convolution takes 3 channels: a detector on DIRE or on eps0 "
            "alone, not a DistilDIRE student (6 channels, image and eps0)"
        )
    student = OfficialStudent()
    wanted = {_authors_key(key): key for key in student.state_dict()}
    shapes = {key: value.shape for key, value in student.state_dict().items()}
    # BatchNorm's counters are absent from checkpoints of old PyTorch versions and unused.
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    count_keys(
        {key: value.shape for key, value in state.items() if key not in optional},
        {key: shapes[ours] for key, ours in wanted.items() if key not in optional},
        str(path),
    )
    student.load_state_dict({**student.state_dict(), **{wanted[k]: v for k, v in state.items()}})
    return student.float().eval()


def _authors_key(ours: str) -> str:
    if ours.startswith("head."):
        return HEAD + ours.removeprefix("head.")
    return BACKBONE + ours.removeprefix("backbone.")
