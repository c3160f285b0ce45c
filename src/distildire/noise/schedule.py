"""The DDPM noise schedule, the first-step noise, DDIM both ways and DIRE, as pure functions.

Notation follows the paper (arXiv 2406.00856): `x0` an RGB image in [-1, 1], `alpha_bar`
the cumulative product of 1 - beta, `eps` predicted noise. Each equation stands here alone;
docs/method.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from distildire.io.progress import DoneOf

Predict: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, 3, H, W], t [B] int64) -> eps [B, 3, H, W]."""

Level: TypeAlias = float | Tensor
"""alpha_bar[t]: one number, or a tensor that broadcasts against [B, 3, H, W]."""

Steps: TypeAlias = Sequence[tuple[int, float, float]]
"""Of DDIM: (t, alpha_bar at t, alpha_bar that the step goes to)."""

STEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02
"""Of the linear schedule (Ho et al. 2020, sec. 4)."""


def to_unit(rgb: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], in any layout: the range of x0.

    Of DIRE's bytes it makes the input that `unit_dire` makes of DIRE, to the bit.
    """
    return rgb.float() / 127.5 - 1.0


def from_unit(x0: Tensor) -> Tensor:
    """The inverse of `to_unit`: [-1, 1] -> uint8, rounded; what lies outside is clipped."""
    return ((x0 + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def linear_alpha_bar(
    steps: int = STEPS, start: float = BETA_START, end: float = BETA_END
) -> Tensor:
    """alpha_bar[t] of the linear DDPM schedule: float64 [steps] (Ho et al. 2020, sec. 4)."""
    beta = torch.linspace(start, end, steps, dtype=torch.float64)
    return torch.cumprod(1.0 - beta, dim=0)


def add_noise(x0: Tensor, eps: Tensor, alpha_bar_t: Level) -> Tensor:
    """x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, eq. 4)."""
    x_t: Tensor = alpha_bar_t**0.5 * x0 + (1.0 - alpha_bar_t) ** 0.5 * eps
    return x_t


def predict_x0(x_t: Tensor, eps: Tensor, alpha_bar_t: float) -> Tensor:
    """x0_hat = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t), not clipped.

    Multiplied out in the order that guided-diffusion rounds in: in float32, forty passes of
    a network enlarge a difference of one rounding to 1e-3.
    """
    x0_hat: Tensor = (1.0 / alpha_bar_t) ** 0.5 * x_t - (1.0 / alpha_bar_t - 1.0) ** 0.5 * eps
    return x0_hat


def rederive_eps(x_t: Tensor, x0_hat: Tensor, alpha_bar_t: Level) -> Tensor:
    """The noise that leads from `x0_hat` to `x_t`: the inverse of `predict_x0`."""
    root = (1.0 / alpha_bar_t - 1.0) ** 0.5
    eps: Tensor = ((1.0 / alpha_bar_t) ** 0.5 * x_t - x0_hat) / root
    return eps


def eps_from_v(x_t: Tensor, v: Tensor, alpha_bar_t: Level) -> Tensor:
    """eps = sqrt(alpha_bar_t) v + sqrt(1 - alpha_bar_t) x_t (Salimans & Ho 2022, appendix D)."""
    eps: Tensor = alpha_bar_t**0.5 * v + (1.0 - alpha_bar_t) ** 0.5 * x_t
    return eps


def eps0(eps: Tensor, x0: Tensor, alpha_bar_0: float, *, clip: bool = True) -> Tensor:
    """First-step noise (paper, sec. 3) from the network's `eps` at t = 0, both [B, 3, H, W].

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


def path_up(alpha_bar: Tensor, steps: int = 20) -> Steps:
    """DDIM's steps from a picture to a latent: t = 0, stride, ...

    Each goes to the *next* alpha_bar of the respaced schedule, and the last to alpha_bar = 0,
    as guided-diffusion's reverse sampling does.
    """
    taken, levels = _levels(alpha_bar, steps)
    return list(zip(taken, levels, [*levels[1:], 0.0], strict=True))


def path_down(alpha_bar: Tensor, steps: int = 20) -> Steps:
    """DDIM's steps from a latent back to a picture: ..., stride, 0; the last to alpha_bar = 1."""
    taken, levels = _levels(alpha_bar, steps)
    return list(zip(taken, levels, [1.0, *levels[:-1]], strict=True))[::-1]


def _levels(alpha_bar: Tensor, steps: int) -> tuple[list[int], list[float]]:
    """The timesteps of a respacing, and alpha_bar at each.

    Raises:
        ValueError: as `respaced_steps`; a level of 0 (zero terminal SNR), which can't be left.
    """
    taken = respaced_steps(steps, len(alpha_bar))
    levels = [float(alpha_bar[t]) for t in taken]
    if 0.0 in levels:
        raise ValueError(
            f"steps is {steps}: that takes timestep {taken[levels.index(0.0)]}, where alpha_bar is "
            "0 and nothing of the picture is left to step from; give fewer steps"
        )
    return taken, levels


def ddim(predict: Predict, x_t: Tensor, path: Steps, progress: DoneOf | None = None) -> Tensor:
    """Follow `path` from x_t [B, 3, H, W], one pass of the network per step (eta = 0)."""
    for done, (t, alpha_bar_t, alpha_bar_to) in enumerate(path, start=1):
        eps = predict(x_t, torch.full((len(x_t),), t, device=x_t.device))
        x_t = ddim_step(x_t, eps, alpha_bar_t, alpha_bar_to)
        if progress is not None:
            progress(done, len(path))
    return x_t


def invert(
    predict: Predict,
    x0: Tensor,
    alpha_bar: Tensor,
    steps: int = 20,
    progress: DoneOf | None = None,
) -> Tensor:
    """DDIM inversion of x0 [B, 3, H, W] in [-1, 1] to a latent of the same shape."""
    return ddim(predict, x0, path_up(alpha_bar, steps), progress)


def sample(
    predict: Predict,
    latent: Tensor,
    alpha_bar: Tensor,
    steps: int = 20,
    progress: DoneOf | None = None,
) -> Tensor:
    """DDIM sampling (eta = 0) from a latent [B, 3, H, W] to x0' in [-1, 1]."""
    return ddim(predict, latent, path_down(alpha_bar, steps), progress)


def quantise_dire(x0: Tensor, x0_reconstructed: Tensor) -> Tensor:
    """DIRE |x0 - x0'| as the reference stores it: uint8 [B, 3, H, W], truncated, 255 for 2."""
    dire = (x0 - x0_reconstructed).abs()
    return (dire * 255.0 / 2.0).clamp(0.0, 255.0).to(torch.uint8)


def unit_dire(dire: Tensor) -> Tensor:
    """DIRE [B, 3, H, W] in [0, 1] -> [-1, 1]: the input of DIRE's classifier (Wang et al. 2023).

    The reference's classifier reads DIRE as a picture, in a picture's range.
    """
    return dire * 2.0 - 1.0
