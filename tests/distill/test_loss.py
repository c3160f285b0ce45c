"""The losses, against the papers' equations."""

from __future__ import annotations

import pytest
import torch

from distildire.distill.loss import (
    Projection,
    UncertaintyWeights,
    consistency_loss,
    distillation_loss,
    logit_kl,
    mixed_labels,
    noise_loss,
    objective,
    smoothed,
    softened_kl,
)


def test_loss_is_the_papers() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6), torch.tensor([0.0, 1, 1, 0, 1, 0])
    student, teacher = torch.randn(6, 4, 2, 2), torch.randn(6, 4, 2, 2)
    got = distillation_loss(logits, labels, student, teacher, lambda_=0.5, pos_weight=0.5)
    p = torch.sigmoid(logits)
    bce = -(0.5 * labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    mse = ((student - teacher) ** 2).mean()
    assert got["bce"] == pytest.approx(float(bce), abs=1e-6)
    assert got["imitation"] == pytest.approx(float(mse), abs=1e-6)
    assert got["loss"] == pytest.approx(float(bce + 0.5 * mse), abs=1e-6)
    alone = distillation_loss(logits, labels, student, None, lambda_=0.5)
    assert float(alone["loss"]) == float(alone["bce"])
    assert float(alone["imitation"]) == 0.0


def test_smoothed_labels_are_as_far_from_a_half_as_stated() -> None:
    assert smoothed(torch.tensor([0.0, 1.0, 0.5]), 0.1).tolist() == pytest.approx([0.05, 0.95, 0.5])


def test_mixed_labels_have_the_gradient_of_both_losses() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    labels, teacher = torch.tensor([0.0, 1, 1, 0, 1, 0]).double(), torch.randn(6).double()
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    both = bce(logits, labels) + 3.0 * logit_kl(logits, teacher)
    mixed = bce(logits, mixed_labels(labels, teacher, 3.0))
    (expected,) = torch.autograd.grad(both, logits)
    (found,) = torch.autograd.grad(mixed, logits)
    torch.testing.assert_close(4 * found, expected)


def test_the_objective_is_the_weighted_sum() -> None:
    losses = {"loss": torch.tensor(1.0), "bce": torch.tensor(7.0)}
    assert float(objective(losses, kl=2.0, consistency=3.0)) == 1.0
    losses["consistency"] = torch.tensor(0.5)
    assert float(objective(losses, kl=2.0, consistency=3.0)) == 2.5
    losses["logit_kl"] = torch.tensor(0.25)
    assert float(objective(losses, kl=2.0, consistency=3.0)) == 3.0


def test_projection_reaches_the_teachers_shape() -> None:
    student, teacher = torch.randn(2, 8, 3, 3), torch.randn(2, 16, 6, 6)
    assert Projection(8, 16)(student, teacher).shape == teacher.shape
    same = torch.randn(2, 8, 3, 3)
    assert torch.equal(Projection(8, 8)(student, same), student)


def test_softened_kl_is_hintons() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 5, 2, 2), torch.randn(3, 5, 2, 2)
    p = torch.softmax(teacher.mean((2, 3)) / 4, 1)
    q = torch.softmax(student.mean((2, 3)) / 4, 1)
    expected = 16 * (p * (p / q).log()).sum(1).mean()
    assert float(softened_kl(student, teacher)) == pytest.approx(float(expected), rel=1e-5)
    losses = distillation_loss(
        torch.zeros(3), torch.zeros(3), student, teacher, lambda_=2.0, imitation="kl"
    )
    assert float(losses["loss"] - losses["bce"]) == pytest.approx(2 * float(expected), rel=1e-5)


def test_a_learned_lambda_finds_the_losses_scale() -> None:
    """At the optimum exp(s) = 2 bce and exp(r) = mse, so that lambda = bce / mse."""
    weights = UncertaintyWeights()
    assert weights.lambda_ == 0.5
    optimizer = torch.optim.SGD(weights.parameters(), lr=0.5)
    bce, mse = torch.tensor(0.3), torch.tensor(4.0)
    for _ in range(500):
        optimizer.zero_grad()
        weights(bce, mse).backward()
        optimizer.step()
    assert weights.lambda_ == pytest.approx(0.3 / 4.0, rel=1e-3)


def test_the_noise_that_is_known_costs_nothing() -> None:
    torch.manual_seed(0)
    x0, eps, t = torch.rand(2, 3, 8, 8) * 2 - 1, torch.randn(2, 3, 8, 8), torch.tensor([3, 7])
    level = torch.tensor([0.9, 0.4])[:, None, None, None]

    def knows(x_t: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        assert torch.equal(steps, t)
        return (x_t - level.sqrt() * x0) / (1 - level).sqrt()

    assert float(noise_loss(knows, x0, eps, t, level)) == pytest.approx(0.0, abs=1e-10)
    half = noise_loss(lambda x_t, t: 0.5 * knows(x_t, t), x0, eps, t, level)
    assert float(half) == pytest.approx(0.25 * float((eps**2).mean()), rel=1e-5)


def test_the_losses_of_logits() -> None:
    logits = torch.tensor([1.0, -2.0, 3.0, 0.0])
    assert float(consistency_loss(logits)) == pytest.approx((4.0 + 4.0) / 2)
    student, teacher = torch.tensor([0.3, -1.0]), torch.tensor([2.0, -0.5])
    p, q = torch.sigmoid(teacher), torch.sigmoid(student)
    kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(logit_kl(student, teacher)) == pytest.approx(float(kl), abs=1e-6)
    assert float(logit_kl(teacher, teacher)) == pytest.approx(0.0, abs=1e-6)
