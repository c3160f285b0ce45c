"""Weights in the form of the Hugging Face hub: config.json and model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from distildire.bundle import TorchPart
from distildire.distill.student import Student
from distildire.distill.torch_bundle import write_torch_bundle
from distildire.noise.nano import NanoConfig, NanoNoise, load_nano, save_nano


def test_student_there_and_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = Student("resnet18", stage=2, inputs="image").eval()
    torch.nn.init.normal_(student.head.weight)
    student.to(memory_format=torch.channels_last).save_pretrained(tmp_path)
    student.to(memory_format=torch.contiguous_format)
    assert set(load_file(tmp_path / "model.safetensors")) == set(student.state_dict())
    assert json.loads((tmp_path / "config.json").read_text())["pretrained"] is False
    again = Student.from_pretrained(tmp_path)
    x0, eps0 = torch.randn(2, 2, 3, 64, 64)
    assert torch.equal(again(x0, eps0), student(x0, eps0))


def test_weights_are_for_whom_the_system_says(tmp_path: Path) -> None:
    student = Student("resnet18", stage=2, inputs="image")
    student.save_pretrained(tmp_path / "student")
    save_nano(NanoNoise(NanoConfig(width=8, depth=1)), tmp_path / "nano")
    part = TorchPart({"backbone": "resnet18", "stage": 2}, "nano")
    write_torch_bundle(student, part, tmp_path / "bundle", name="x", provenance={})
    (tmp_path / "plain").touch()
    wanted = (tmp_path / "plain").stat().st_mode
    written = [*tmp_path.rglob("*.safetensors")]
    assert len(written) == 3
    assert {path.stat().st_mode for path in written} == {wanted}


def test_noise_predictor_there_and_back(tmp_path: Path) -> None:
    network, _ = load_nano()
    network.save_pretrained(tmp_path)
    again = NanoNoise.from_pretrained(tmp_path)
    assert again.config == network.config
    x0, t = torch.rand(1, 3, 32, 32) * 2 - 1, torch.zeros(1, dtype=torch.int64)
    assert torch.equal(again(x0, t), network(x0, t))
    small = NanoNoise(NanoConfig(width=8, depth=1))
    small.save_pretrained(tmp_path / "small")
    assert NanoNoise.from_pretrained(tmp_path / "small").config.width == 8
