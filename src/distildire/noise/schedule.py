"""The DDPM noise schedule, the first-step noise, DDIM both ways and DIRE, as pure functions.

Notation follows the paper (arXiv 2406.00856): `x0` an RGB image in [-1, 1], `alpha_bar`
the cumulative product of 1 - beta, `eps` predicted noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from distildire.io.progress import DoneOf

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, 3, H, W], t [B] int64) -> eps [B, 3, H, W]."""

STEPS = 1000


def linear_alpha_bar(steps: int = STEPS, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """alpha_bar[t] of the linear DDPM schedule: float64 [steps] (Ho et al. 2020, sec. 4)."""
    beta = torch.linspace(start, end, steps, dtype=torch.float64)
    return torch.cumprod(1.0 - beta, dim=0)


def predict_x0(x_t: Tensor, eps: Tensor, alpha_bar_t: float) -> Tensor:
    """x0_hat = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t), not clipped.

    Multiplied out in the order that guided-diffusion rounds in: in float32, forty passes of
    a network enlarge a difference of one rounding to 1e-3.
    """
    x0_hat: Tensor = (1.0 / alpha_bar_t) ** 0.5 * x_t - (1.0 / alpha_bar_t - 1.0) ** 0.5 * eps
    return x0_hat


def rederive_eps(x_t: Tensor, x0_hat: Tensor, alpha_bar_t: float) -> Tensor:
    """The noise that leads from `x0_hat` to `x_t`: the inverse of `predict_x0`."""
    root = (1.0 / alpha_bar_t - 1.0) ** 0.5
    eps: Tensor = ((1.0 / alpha_bar_t) ** 0.5 * x_t - x0_hat) / root
    return eps


def first_step_noise(eps: Tensor, x0: Tensor, alpha_bar_0: float, *, clip: bool = True) -> Tensor:
    """eps0 of DistilDIRE from the network's `eps` at t = 0: [B, 3, H, W] -> [B, 3, H, W].

    With `clip` (the reference's behaviour) eps0 is derived anew from x0_hat clipped to
    [-1, 1], so that it differs from `eps` near saturated pixels.
    """
    if not clip:
        return eps
    x0_hat = predict_x0(x0, eps, alpha_bar_0).clamp(-1.0, 1.0)
    return rederive_eps(x0, x0_hat, alpha_bar_0)


def respaced_steps(count: int, steps: int = STEPS) -> list[int]:
    """The timesteps 0, stride, 2 stride, ... of a "ddim<count>" respacing, ascending.

    guided-diffusion takes the smallest integer stride that gives exactly `count` steps.

    Raises:
        ValueError: no integer stride over `steps` gives `count` steps.
    """
    for stride in range(1, steps + 1):
        taken = range(0, steps, stride)
        if len(taken) == count:
            return list(taken)
    raise ValueError(
        f"steps is {count}: no integer stride over {steps} timesteps gives exactly that many "
        "(20, 50 and 100 of 1000 work)"
    )


def ddim_step(x_t: Tensor, eps: Tensor, alpha_bar_t: float, alpha_bar_to: float) -> Tensor:
    """One deterministic DDIM step to another noise level, up or down (Song et al. 2021, eq. 12).

    As in guided-diffusion, x0_hat is clipped to [-1, 1] and `eps` derived anew from it.
    """
    x0_hat = predict_x0(x_t, eps, alpha_bar_t).clamp(-1.0, 1.0)
    eps = rederive_eps(x_t, x0_hat, alpha_bar_t)
    # The reference takes this level's roots in the pictures' own precision.
    level = torch.tensor(alpha_bar_to, dtype=x_t.dtype)
    return x0_hat * level.sqrt() + (1.0 - level).sqrt() * eps


def invert(
    predict: Predict,
    x0: Tensor,
    alpha_bar: Tensor,
    steps: int = 20,
    progress: DoneOf | None = None,
) -> Tensor:
    """DDIM inversion of x0 [B, 3, H, W] in [-1, 1] to a latent of the same shape.

    The steps are t = 0, stride, ...; each uses the *next* alpha_bar of the respaced schedule,
    and the last goes to alpha_bar = 0, as guided-diffusion's reverse sampling does.
    """
    taken = respaced_steps(steps, len(alpha_bar))
    levels = [float(alpha_bar[t]) for t in taken] + [0.0]
    x_t = x0
    for i, t in enumerate(taken):
        eps = predict(x_t, torch.full((len(x_t),), t, device=x_t.device))
        x_t = ddim_step(x_t, eps, levels[i], levels[i + 1])
        if progress is not None:
            progress(i + 1, steps)
    return x_t


def sample(
    predict: Predict,
    latent: Tensor,
    alpha_bar: Tensor,
    steps: int = 20,
    progress: DoneOf | None = None,
) -> Tensor:
    """DDIM sampling (eta = 0) from a latent [B, 3, H, W] to x0' in [-1, 1]."""
    taken = respaced_steps(steps, len(alpha_bar))
    levels = [1.0] + [float(alpha_bar[t]) for t in taken]
    x_t = latent
    for i in reversed(range(steps)):
        eps = predict(x_t, torch.full((len(x_t),), taken[i], device=x_t.device))
        x_t = ddim_step(x_t, eps, levels[i + 1], levels[i])
        if progress is not None:
            progress(steps - i, steps)
    return x_t


def quantise_dire(x0: Tensor, x0_reconstructed: Tensor) -> Tensor:
    """DIRE |x0 - x0'| as the reference stores it: uint8 [B, 3, H, W], truncated, 255 for 2."""
    dire = (x0 - x0_reconstructed).abs()
    return (dire * 255.0 / 2.0).clamp(0.0, 255.0).to(torch.uint8)
