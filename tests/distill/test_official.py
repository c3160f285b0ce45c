"""The authors' checkpoints against an independent torchvision ResNet-50."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from distildire.distill import load_student
from distildire.distill.torch_bundle import convert_student


class Oracle(nn.Module):
    """torchvision's ResNet-50 with six input channels and one output, randomly set."""

    def __init__(self, seed: int, channels: int = 6) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = resnet50(weights=None, num_classes=1)
        self.net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        self.eval()

    def forward(self, x0: torch.Tensor, eps0: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([x0, eps0], dim=1))[:, 0]

    def checkpoint(self, prefix: str = "") -> dict[str, Any]:
        model = {
            prefix
            + (
                key.replace("fc.", "student_head.2.")
                if key.startswith("fc.")
                else f"student_backbone.{key}"
            ): value
            for key, value in self.net.state_dict().items()
        }
        optimiser = {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-4}]}
        return {"model": model, "optimizer": optimiser, "total_steps": 7}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle(seed=5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_logits_equal_torchvisions(oracle: Oracle, prefix: str, tmp_path: Path) -> None:
    torch.save(oracle.checkpoint(prefix), tmp_path / "student.pth")
    student = load_student(tmp_path / "student.pth")
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(2, 3, 96, 64, generator=generator) * 2 - 1
    eps0 = torch.randn(2, 3, 96, 64, generator=generator)
    assert not student.training
    with torch.no_grad():
        logits = student(x0, eps0)
        assert logits.shape == (2,)
        torch.testing.assert_close(logits, oracle(x0, eps0), atol=1e-5, rtol=1e-5)

    if prefix:
        folder = convert_student(tmp_path / "student.pth", tmp_path / "out")
        about = json.loads((folder / "bundle.json").read_text())
        assert about["torch"] == {"student": {"form": "official"}, "noise": "adm"}
        assert about["calibration"] is None
        with torch.no_grad():
            torch.testing.assert_close(load_student(folder)(x0, eps0), logits)


def test_wrong_checkpoints_are_named(oracle: Oracle, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pth"
    missing = oracle.checkpoint()
    del missing["model"]["student_backbone.layer3.1.conv2.weight"]
    torch.save(missing, path)
    with pytest.raises(ValueError, match=r"1 missing \(student_backbone\.layer3\.1\.conv2"):
        load_student(path)

    torch.save(Oracle(seed=1, channels=3).checkpoint(), path)
    with pytest.raises(ValueError, match="3 channels"):
        load_student(path)

    torch.save({"model": {"conv1.weight": torch.zeros(2)}}, path)
    with pytest.raises(ValueError, match="not a DistilDIRE student"):
        load_student(path)

    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="half downloaded"):
        load_student(path)

    with pytest.raises(ValueError, match="no such file"):
        load_student(tmp_path / "absent.pth")
