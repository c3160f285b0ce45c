"""The DDPM noise schedule and the first-step noise, as pure functions.

Notation follows the paper (arXiv 2406.00856): `x0` an RGB image in [-1, 1], `alpha_bar`
the cumulative product of 1 - beta, `eps` predicted noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, 3, H, W], t [B] int64) -> eps [B, 3, H, W]."""

STEPS = 1000


def linear_alpha_bar(steps: int = STEPS, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """alpha_bar[t] of the linear DDPM schedule: float64 [steps] (Ho et al. 2020, sec. 4)."""
    beta = torch.linspace(start, end, steps, dtype=torch.float64)
    return torch.cumprod(1.0 - beta, dim=0)


def predict_x0(x_t: Tensor, eps: Tensor, alpha_bar_t: float) -> Tensor:
    """x0_hat = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t), not clipped."""
    return (x_t - (1.0 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5


def rederive_eps(x_t: Tensor, x0_hat: Tensor, alpha_bar_t: float) -> Tensor:
    """The noise that leads from `x0_hat` to `x_t`: the inverse of `predict_x0`."""
    return (x_t / alpha_bar_t**0.5 - x0_hat) / (1.0 / alpha_bar_t - 1.0) ** 0.5


def first_step_noise(eps: Tensor, x0: Tensor, alpha_bar_0: float, *, clip: bool = True) -> Tensor:
    """eps0 of DistilDIRE from the network's `eps` at t = 0: [B, 3, H, W] -> [B, 3, H, W].

    With `clip` (the reference's behaviour) eps0 is derived anew from x0_hat clipped to
    [-1, 1], so that it differs from `eps` near saturated pixels.
    """
    if not clip:
        return eps
    x0_hat = predict_x0(x0, eps, alpha_bar_0).clamp(-1.0, 1.0)
    return rederive_eps(x0, x0_hat, alpha_bar_0)
