"""The head that is fitted before the first step, against scikit-learn's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distildire.distill.checkpoint import build_student, load_checkpoint
from distildire.distill.config import TrainConfig
from distildire.distill.export import export
from distildire.distill.probe import fit_hidden, logistic_regression
from distildire.distill.student import HiddenHead, Student, activation_map
from distildire.distill.torch_bundle import export_torch
from distildire.distill.train import train


def test_the_fitted_head_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 6)) * [1, 5, 0.1, 2, 1, 1] + 3
    labels = (features[:, 0] + rng.normal(size=400) > 3).astype(np.float32)
    l2 = 0.05
    weights, bias = logistic_regression(
        torch.tensor(features, dtype=torch.float32), torch.tensor(labels), l2=l2
    )
    deviation = features.std(0, ddof=1)
    unit = (features - features.mean(0)) / deviation
    oracle = LogisticRegression(C=1 / (l2 * 400), tol=1e-8).fit(unit, labels)
    assert weights.numpy() * deviation == pytest.approx(oracle.coef_[0], abs=2e-3)
    logits = features @ weights.numpy() + bias.item()
    assert logits == pytest.approx(oracle.decision_function(unit), abs=1e-2)


def test_a_hidden_head_learns_what_no_line_tells_apart() -> None:
    """Exclusive or, on features of unlike scales."""
    torch.manual_seed(0)
    signs = torch.randint(0, 2, (2000, 2)).float() * 2 - 1
    labels = (signs.prod(dim=1) > 0).float()
    features = (signs + 0.3 * torch.randn(2000, 2)) * torch.tensor([0.01, 40.0]) + 3
    weights, bias = logistic_regression(features, labels, l2=0.01)
    assert ((features @ weights + bias > 0) == labels.bool()).float().mean() < 0.65
    head = HiddenHead(2, 16)
    fit_hidden(head, features, labels, dropout=0.0, weight_decay=0.01, epochs=60)
    with torch.no_grad():
        right = ((head(features)[:, 0] > 0) == labels.bool()).float().mean()
    assert right > 0.95


def test_a_hidden_head_is_fitted_exported_and_explained(
    config: TrainConfig, tmp_path: Path
) -> None:
    student = replace(config.student, hidden=8)
    optim = replace(config.optim, steps=0, probe_crops=64, probe_epochs=3)
    best = train(replace(config, student=student, optim=optim), tmp_path / "run")
    network, *_ = load_checkpoint(best)
    assert isinstance(network.head, HiddenHead)
    assert network.head.outer.weight.abs().sum() > 0
    side = config.preprocessing.crop
    x0, eps0 = torch.rand(3, 3, side, side) * 2 - 1, torch.randn(3, 3, side, side)
    with torch.no_grad():
        heat = activation_map(network.head, network.forward_maps(x0, eps0))
        assert torch.allclose(heat.mean(dim=(1, 2)), network(x0, eps0), atol=1e-4)
    export(best, tmp_path / "bundle", weights="float32")  # checks its logits against these
    whole = export_torch(best, tmp_path / "torch")
    assert whole.torch is not None
    assert whole.torch.student["hidden"] == 8
    assert not set(Student.__init__.__kwdefaults__) - set(whole.torch.student) - {
        "pretrained", "dropout",
    }, "the bundle must say all that makes the student"  # fmt: skip


@pytest.mark.parametrize("crops", [1, 31])
def test_too_few_crops_for_a_head_are_refused(config: TrainConfig, crops: int) -> None:
    with pytest.raises(ValueError, match=f"probe_crops is {crops}: give a number of at least 32"):
        replace(config.optim, probe_crops=crops)


def test_a_fitted_head_alone_is_a_detector(config: TrainConfig, tmp_path: Path) -> None:
    optim = replace(config.optim, steps=0, probe_crops=64)
    alone = replace(config, optim=optim)
    rows: list[dict[str, float]] = []
    best = train(alone, tmp_path / "run", report=rows.append)
    assert rows[0] == {"step": 0, "probe_crops": 0, "of": 64}
    assert "probe_bce" in rows[1]
    student, _, facts = load_checkpoint(best)
    assert facts["step"] == 0
    assert student.head.weight.abs().sum() > 0
    torch.manual_seed(optim.seed)
    start = build_student(alone).backbone.state_dict()
    assert all(torch.equal(v, start[k]) for k, v in student.backbone.state_dict().items())
