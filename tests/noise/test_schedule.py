"""The schedule and DDIM against diffusers' own scheduler and closed forms."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from distildire.noise.schedule import (
    add_noise,
    ddim,
    ddim_step,
    eps_from_v,
    from_unit,
    invert,
    linear_alpha_bar,
    path_down,
    path_up,
    predict_x0,
    quantise_dire,
    respaced_steps,
    sample,
    to_unit,
    unit_dire,
)


def predict(x_t: Tensor, t: Tensor) -> Tensor:
    """A smooth stand-in for a network."""
    return torch.tanh(x_t * 0.7 + t[:, None, None, None] / 2000)


def test_respaced_steps() -> None:
    assert respaced_steps(20) == list(range(0, 1000, 50))
    assert respaced_steps(1000) == list(range(1000))
    assert respaced_steps(3, 10) == [0, 4, 8]
    with pytest.raises(ValueError, match="steps is 999"):
        respaced_steps(999)
    with pytest.raises(ValueError, match="steps is 0"):
        respaced_steps(0)


def test_sampling_agrees_with_diffusers() -> None:
    scheduler = DDIMScheduler(1000, clip_sample=True, timestep_spacing="leading")
    scheduler.set_timesteps(20)
    latent = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x_t = latent
    for t in scheduler.timesteps:
        eps = predict(x_t, t.repeat(2))
        x_t = scheduler.step(eps, t, x_t, use_clipped_model_output=True).prev_sample
    ours = sample(predict, latent, linear_alpha_bar())
    torch.testing.assert_close(ours, x_t, atol=2e-5, rtol=1e-5)


def test_inversion_of_a_known_noise() -> None:
    # A network that knows x0 and the noise leads up the exact straight line of DDIM.
    alpha_bar = linear_alpha_bar()
    x0 = torch.full((1, 3, 4, 4), 0.4, dtype=torch.float64)
    eps = torch.full_like(x0, -0.7)
    start = alpha_bar[0].sqrt() * x0 + (1 - alpha_bar[0]).sqrt() * eps
    latent = invert(lambda x_t, t: eps, start, alpha_bar)
    torch.testing.assert_close(latent, eps)  # the last level is alpha_bar = 0


def test_step_clips_x0_hat() -> None:
    x_t = torch.tensor([[[[0.9]]]])
    there = ddim_step(x_t, torch.tensor([[[[-1.0]]]]), 0.5, 1.0)
    assert there.item() == 1.0


def test_progress_counts_each_pass() -> None:
    calls: list[tuple[int, int]] = []
    invert(predict, torch.zeros(1, 3, 4, 4), linear_alpha_bar(), 5, lambda *c: calls.append(c))
    assert calls == [(i, 5) for i in range(1, 6)]


def test_quantised_dire_truncates() -> None:
    x0 = torch.tensor([1.0, 0.5, 0.0, 0.0])
    back = torch.tensor([-1.0, 0.5, 2 / 255 - 1e-4, 2 / 255 + 1e-4])
    assert quantise_dire(x0, back).tolist() == [255, 0, 0, 1]


def test_noise_is_added_by_the_closed_form() -> None:
    """The variance of x_t is alpha_bar var(x0) + 1 - alpha_bar; t is one for each picture."""
    generator = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(2, 3, 64, 64, generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    levels = torch.tensor([0.9, 0.2])[:, None, None, None]
    x_t = add_noise(x0, eps, levels)
    for picture, level in zip(x_t, (0.9, 0.2), strict=True):
        assert float(picture.var()) == pytest.approx(0.25 * level + 1 - level, rel=0.03)
    torch.testing.assert_close(x_t[1:], add_noise(x0[1:], eps[1:], 0.2))
    torch.testing.assert_close(predict_x0(x_t[:1], eps[:1], 0.9), x0[:1], atol=1e-5, rtol=1e-5)


def test_eps_from_v_inverts_its_definition() -> None:
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0."""
    x0, eps = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    v = 0.7**0.5 * eps - 0.3**0.5 * x0
    torch.testing.assert_close(eps_from_v(add_noise(x0, eps, 0.7), v, 0.7), eps)


def test_pixels_come_back_from_the_range() -> None:
    rgb = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(from_unit(to_unit(rgb)), rgb)
    assert from_unit(torch.tensor([-1.5, 1.01, 0.001])).tolist() == [0, 255, 128]


def test_the_linear_schedule_is_diffusers() -> None:
    scheduler = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    torch.testing.assert_close(linear_alpha_bar().float(), scheduler.alphas_cumprod)


def test_a_part_of_the_way_down_ends_where_the_whole_does() -> None:
    alpha_bar = linear_alpha_bar()
    way = path_down(alpha_bar, 20)
    assert [t for t, _, _ in way] == list(range(950, -1, -50))
    assert [level for _, level, _ in way[1:]] == [to for _, _, to in way[:-1]]
    assert way[-1][2] == 1.0
    assert path_up(alpha_bar, 20)[-1][2] == 0.0
    start = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    middle = ddim(lambda x_t, t: 0.1 * x_t, start, way[:7])
    whole = sample(lambda x_t, t: 0.1 * x_t, start, alpha_bar)
    torch.testing.assert_close(ddim(lambda x_t, t: 0.1 * x_t, middle, way[7:]), whole)


def test_pixels_span_the_range() -> None:
    rgb = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_unit(rgb), torch.tensor([-1.0, -0.6, 1.0]))


def test_dire_and_its_bytes_are_one_input() -> None:
    """2 k / 255 - 1 for each byte k, rounded once: the same from a cache as from a source."""
    stored = torch.arange(256, dtype=torch.uint8)
    exact = (2 * torch.arange(256, dtype=torch.float64) / 255).float() - 1
    assert torch.equal(unit_dire(stored.float() / 255.0), exact)
    assert torch.equal(to_unit(stored), exact)
