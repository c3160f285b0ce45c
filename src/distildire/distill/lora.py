"""Low-rank adaptation (LoRA, Hu et al. 2022, arXiv 2106.09685): W x + B A x, W as it was.

The `peft` package would bring transformers along for these lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowRankLinear(nn.Module):
    """A frozen linear layer W and a learned change of rank `rank` beside it (section 4.1, eq. 3).

    It begins as the layer was: B is zero.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]: W x + B A x."""
        kept: Tensor = self.linear(x)
        return kept + F.linear(F.linear(x, self.a), self.b)


def add_low_rank(network: nn.Module, rank: int) -> None:
    """Freeze `network`, and let every linear layer in it learn a change of rank `rank` instead."""
    network.requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, LowRankLinear(child, rank))


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network as if it never had changes of low rank: W + B A in the place of W."""
    plain = dict(state)
    for stem in [name.removesuffix(".linear.weight") for name in state]:
        if f"{stem}.linear.weight" in state and f"{stem}.b" in state:
            change = plain.pop(f"{stem}.b") @ plain.pop(f"{stem}.a")
            plain[f"{stem}.weight"] = plain.pop(f"{stem}.linear.weight") + change
            if f"{stem}.linear.bias" in state:
                plain[f"{stem}.bias"] = plain.pop(f"{stem}.linear.bias")
    return plain
