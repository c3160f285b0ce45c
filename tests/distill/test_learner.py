"""How the weights move: the rate, and their moving average."""

from __future__ import annotations

import pytest
import torch

from distildire.distill.config import TrainConfig
from distildire.distill.learner import learning_rate, moving_average, rate_factor
from distildire.distill.student import Student
from distildire.io.config import build


def test_learning_rate_warms_up_and_falls() -> None:
    config = build(TrainConfig, {"optim": {"steps": 100, "warmup": 10}})
    rates = [learning_rate(s, config) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_rate_by_the_clock_ends_at_zero() -> None:
    assert [rate_factor(step, 4, 0.9) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    falling = [rate_factor(4, 4, gone) for gone in (0.0, 0.25, 0.5, 1.0, 1.1)]
    assert falling == pytest.approx([1.0, (2 + 2**0.5) / 4, 0.5, 0.0, 0.0])


def test_moving_average_follows_weights_and_statistics() -> None:
    model = Student("resnet18")
    average = moving_average(model, 0.9)
    with torch.no_grad():
        model.head.weight.fill_(1.0)
    for _ in range(200):
        average.update_parameters(model)
    assert torch.allclose(average.module.head.weight, torch.ones(1), atol=1e-3)
