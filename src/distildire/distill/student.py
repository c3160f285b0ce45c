"""The student: one logit from an image and its first-step noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from distildire.distill.backbones import Backbone
from distildire.distill.vit import SHAPES, VitBackbone

Inputs = Literal["both", "image", "noise", "dire"]
"""What the student sees: cat(x0, eps0) as in the paper, one of the two, or DIRE alone.

DIRE, scaled to [-1, 1], is given in the place of eps0: the baseline of Wang et al. 2023.
"""

_SEEN: dict[Inputs, Callable[[Tensor, Tensor], Tensor]] = {
    "both": lambda x0, eps0: torch.cat([x0, eps0], dim=1),
    "image": lambda x0, eps0: x0,
    "noise": lambda x0, eps0: eps0,
    "dire": lambda x0, dire: dire,
}
"""What the backbone is given of the two, both [B, 3, H, W]."""

Fusion = Literal["concat", "separate"]
"""How image and noise meet: in the first convolution as in the paper, or each in a backbone of
its own, whose maps are joined channel by channel."""


class Student(  # type: ignore[call-arg]  # the mixin's own options
    nn.Module,
    PyTorchModelHubMixin,  # type: ignore[misc]
    library_name="distildire",
    tags=["generated-image-detection"],
):
    """Backbone on cat(x0, eps0), global average pool, one linear unit (fake = 1).

    `hidden` puts a layer of that many rectified units before it.

    With `wide` the unit sees more than the last map: the wide maps inside the inverted
    residuals (of a vision transformer: the class token and the patches of each of `taps`), and
    how strong eps0 is in each frequency of 4 x 4 blocks.

    `save_pretrained` and `from_pretrained` write and read plain safetensors with a
    config.json, on disk or on the Hugging Face hub.
    """

    def __init__(  # noqa: PLR0913
        self,
        backbone: str = "resnet50",
        *,
        stage: int = 4,
        taps: Sequence[int] = (),
        merge_after: int = 0,
        inputs: Inputs = "both",
        fusion: Fusion = "concat",
        wide: bool = False,
        hidden: int = 0,
        pretrained: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if inputs not in get_args(Inputs):
            raise ValueError(f"inputs is {inputs!r}: use one of {', '.join(get_args(Inputs))}")
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion is {fusion!r}: use one of {', '.join(get_args(Fusion))}")
        # Who loads saved weights has no use for the backbone's own.
        saved: dict[str, Any] = getattr(self, "_hub_mixin_config", None) or {}
        self._hub_mixin_config = {**saved, "pretrained": False}
        self.inputs = inputs
        self._see, self._sees_noise = _SEEN[inputs], inputs != "image"
        joined = inputs == "both" and fusion == "concat"
        self.backbone: Backbone | VitBackbone
        if backbone in SHAPES:
            self.backbone = VitBackbone(
                backbone, stage, taps=taps, merge_after=merge_after, pretrained=pretrained
            )
        else:
            self.backbone = Backbone(
                backbone, stage=stage, in_chans=6 if joined else 3, pretrained=pretrained
            )
        self.noise_backbone: Backbone | None = None
        if inputs == "both" and fusion == "separate":
            self.noise_backbone = Backbone(backbone, stage=stage, pretrained=pretrained)
        if wide and fusion == "separate":
            raise ValueError("student.wide takes fusion: concat")
        self.channels = self.backbone.channels * (2 if self.noise_backbone is not None else 1)
        self.wide = wide
        self.dropout = nn.Dropout(dropout)
        seen = self._pooled_channels() if wide else self.channels
        self.head: nn.Linear | HiddenHead
        if hidden:
            self.head = HiddenHead(seen, hidden)
        else:
            self.head = nn.Linear(seen, 1)
            nn.init.zeros_(self.head.weight)  # pretrained maps are large: start at p = 0.5

    def forward_maps(self, x0: Tensor, eps0: Tensor) -> list[Tensor]:
        """x0 in [-1, 1] and eps0, both [B, 3, H, W] -> the maps that the head pools.

        The last, [B, C, h, w], is the one that is compared with the teacher's.
        """
        if self.noise_backbone is not None:
            return [torch.cat([self.backbone(x0), self.noise_backbone(eps0)], dim=1)]
        x = self._see(x0, eps0)
        if not self.wide:
            return [self.backbone(x)]
        energies = [block_energy(eps0)] if self._sees_noise else []
        return [*energies, *self.backbone.forward_wide(x)]

    def pool(self, maps: list[Tensor]) -> Tensor:
        """Maps [B, C_i, h_i, w_i] -> their means, side by side: [B, sum of C_i]."""
        return torch.cat([m.float().mean(dim=(2, 3)) for m in maps], dim=1)

    def classify(self, maps: list[Tensor]) -> Tensor:
        """The maps of `forward_maps` -> logits [B]."""
        logits: Tensor = self.head(self.dropout(self.pool(maps)))
        return logits[:, 0]

    def _pooled_channels(self) -> int:
        # In eval mode: a pass in training mode would move the batch statistics.
        probe = torch.zeros(1, 3, 64, 64)
        training = self.training
        with torch.no_grad():
            channels = sum(m.shape[1] for m in self.eval().forward_maps(probe, probe))
        self.train(training)
        return channels

    def forward(self, x0: Tensor, eps0: Tensor) -> Tensor:
        """x0 in [-1, 1] and eps0, both [B, 3, H, W] -> logits [B]; positive means fake."""
        return self.classify(self.forward_maps(x0, eps0))

    def _save_pretrained(self, save_directory: Path) -> None:
        # The mixin's own would leave a file that its owner alone may read.
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        (save_directory / "model.safetensors").write_bytes(save(weights))


class HiddenHead(nn.Module):
    """A layer of rectified units and a linear one: [B, channels] -> [B, 1]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(channels, hidden), nn.Linear(hidden, 1)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels] -> [B, 1]."""
        logits: Tensor = self.outer(F.relu(self.inner(x)))
        return logits


def activation_map(head: nn.Linear | HiddenHead, maps: list[Tensor]) -> Tensor:
    """The linear unit at each place of the last map: [B, h, w], whose mean is the logit.

    With a hidden layer, the units that this picture turns on are one linear unit together,
    which is shown: the mean is the logit all the same.

    Finer maps are averaged over the places of the last one, which changes no mean where
    their sides are multiples of its sides. A map of one place (a class token) has none to
    show: what it adds to the logit is spread evenly.

    Raises:
        ValueError: they are no multiples: the crop's side doesn't suit the backbone's strides.
    """
    side = maps[-1].shape[-1]
    units = head if isinstance(head, nn.Linear) else head.inner
    heat: Tensor = units.bias[:, None, None]
    weights = torch.split(units.weight, [m.shape[1] for m in maps], dim=1)
    for m, weight in zip(maps, weights, strict=True):
        unit = F.conv2d(m, weight[:, :, None, None])
        if unit.shape[-1] == 1:
            heat = heat + unit
            continue
        k, rest = divmod(int(unit.shape[-1]), int(side))
        if rest:
            raise ValueError(
                f"maps of {unit.shape[-1]} and {side} places a side: give a crop whose side is a "
                "multiple of the backbone's largest stride (--crop)"
            )
        heat = heat + (F.avg_pool2d(unit, k) if k > 1 else unit)
    if isinstance(head, HiddenHead):
        on = heat.mean(dim=(2, 3), keepdim=True) > 0
        heat = F.conv2d(heat * on, head.outer.weight[:, :, None, None], head.outer.bias)
    return heat[:, 0]


def block_energy(eps0: Tensor, block: int = 4) -> Tensor:
    """How strong eps0 [B, 3, H, W] is at each frequency of its blocks: [B, 6 b^2, H/b, W/b].

    The size of each coefficient of the discrete cosine transform of b x b blocks, by colour,
    and its logarithm, which tells faint ones apart.
    """
    k = torch.arange(block, dtype=torch.float64)
    cosine = torch.cos(torch.pi * (2 * k[None, :] + 1) * k[:, None] / (2 * block))
    cosine *= torch.where(k == 0, 1.0, math.sqrt(2.0))[:, None] / math.sqrt(block)
    basis = torch.einsum("uy,vx->uvyx", cosine, cosine).reshape(-1, 1, block, block)
    filters = basis.repeat(3, 1, 1, 1).to(eps0)
    with torch.autocast(eps0.device.type, enabled=False):
        size = F.conv2d(eps0, filters, stride=block, groups=3).abs()
    return torch.cat([size, (size + 0.05).log()], dim=1)
