"""A noise source to test with, in place of a diffusion model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class StandInNoise:
    """Its eps0 is the picture itself; its DIRE, in [0, 1], is what `of` makes of x0."""

    name, weights_hash, dtype, clip = "standin", "00", torch.float32, True
    device = torch.device("cpu")

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        self._of = of

    def eps0(self, x0: Tensor) -> Tensor:
        return x0

    def dire(self, x0: Tensor, steps: int) -> Tensor:
        return self._of(x0)
