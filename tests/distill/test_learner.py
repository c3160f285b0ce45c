"""How the weights move: their rates, and their moving average."""

from __future__ import annotations

import pytest
import torch

from distildire.distill.config import OptimConfig, TeacherConfig, TrainConfig
from distildire.distill.learner import (
    Learner,
    learning_rate,
    moving_average,
    parameter_groups,
    rate_factor,
)
from distildire.distill.student import Student
from distildire.distill.vit import DINO
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


def test_rates_fall_towards_the_input() -> None:
    optim = OptimConfig(lr=1.0, body_lr=0.1, layer_decay=0.5, weight_decay=0.2)
    student = Student(DINO, stage=2, inputs="image", wide=True)
    learner = Learner(student, None, TeacherConfig(backbone=""), optim)
    rate = {id(p): g["lr"] for g in parameter_groups(learner, optim) for p in g["params"]}
    network = student.backbone.network
    assert rate[id(student.head.weight)] == 1.0
    assert rate[id(network.blocks[1].mlp.fc1.weight)] == pytest.approx(0.1)
    assert rate[id(network.blocks[0].mlp.fc1.weight)] == pytest.approx(0.05)
    assert rate[id(network.patch_embed.proj.weight)] == pytest.approx(0.025)
    decay = {
        id(p): g["weight_decay"] for g in parameter_groups(learner, optim) for p in g["params"]
    }
    assert decay[id(student.head.bias)] == 0.0
    assert decay[id(student.head.weight)] == 0.2


def test_the_first_blocks_can_stay_as_they_are() -> None:
    student = Student(DINO, stage=2, inputs="image", wide=True)
    optim = OptimConfig(frozen=1)
    groups = parameter_groups(Learner(student, None, TeacherConfig(backbone=""), optim), optim)
    learns = {id(p) for group in groups for p in group["params"]}
    network = student.backbone.network
    for part, expected in ((network.patch_embed, False), (network.blocks[0], False),
                           (network.blocks[1], True), (student.head, True)):  # fmt: skip
        for p in part.parameters():
            assert (id(p) in learns) == p.requires_grad == expected
