"""Checkpoints: what is none, and those of earlier versions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distildire.distill.checkpoint import build_student, load_checkpoint, restore
from distildire.distill.config import TrainConfig
from distildire.distill.start import read_trained
from distildire.io.config import ConfigError, build, to_dict


def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    with pytest.raises(ValueError, match=r"best\.pt: cannot be read"):
        load_checkpoint(path)
    torch.save({"student": tmp_path}, path)
    foreign = path.read_bytes()
    for data in (b"\xff\xd8\xff\xe0 a picture", b"", foreign):
        path.write_bytes(data)
        for read in (load_checkpoint, lambda path: read_trained(str(path))):
            with pytest.raises(ValueError, match=r"best\.pt: damaged, or no .*") as error:
                read(path)
            assert "\n" not in str(error.value)
            assert "weights_only" not in str(error.value)


def test_a_checkpoint_of_an_earlier_version_is_read_and_gone_on_with(tmp_path: Path) -> None:
    options = {"student": {"backbone": "resnet18", "stage": 1}, "teacher": {"lambda_": 0.3}}
    config = build(TrainConfig, options)
    student = build_student(config)
    tree = to_dict(config)
    tree["optim"]["compile"] = False
    tree["teacher"]["weight"] = tree["teacher"].pop("lambda_")
    content = {"config": tree, "facts": {"step": 3}, "student": student.state_dict()}
    torch.save(content, tmp_path / "best.pt")
    _, read, _ = load_checkpoint(tmp_path / "best.pt")
    assert read == config
    assert restore(tmp_path / "best.pt", {"student": student}, config) == {"step": 3}
    with pytest.raises(ConfigError, match="weight"):
        build(TrainConfig, {"teacher": {"weight": 0.3}})
