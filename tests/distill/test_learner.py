"""How the weights move: the rate, and their moving average."""

from __future__ import annotations

import pytest
import torch

from distildire.distill.config import TrainConfig
from distildire.distill.learner import learning_rate, moving_average
from distildire.distill.student import Student
from distildire.io.config import build


def test_learning_rate_warms_up_and_falls() -> None:
    config = build(TrainConfig, {"optim": {"steps": 100, "warmup": 10}})
    rates = [learning_rate(s, config) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[-1] < 0.01
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_moving_average_follows_weights_and_statistics() -> None:
    model = Student("resnet18")
    average = moving_average(model, 0.9)
    with torch.no_grad():
        model.head.weight.fill_(1.0)
    for _ in range(200):
        average.update_parameters(model)
    assert torch.allclose(average.module.head.weight, torch.ones(1), atol=1e-3)
