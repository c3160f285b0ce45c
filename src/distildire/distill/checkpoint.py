"""Checkpoints of training runs: written whole, read without pickle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from distildire.distill.config import TrainConfig, as_of_now, network_of
from distildire.distill.start import begin, read_saved
from distildire.distill.student import Student
from distildire.io.config import build, to_dict
from distildire.io.writing import whole_file


def build_student(config: TrainConfig) -> Student:
    """The student that `config` describes."""
    spec = config.student
    student = Student(**network_of(asdict(spec)), pretrained=spec.pretrained, dropout=spec.dropout)
    if spec.init:
        begin(student, spec.init)
    return student


def save(path: Path, weights: dict[str, Any], config: TrainConfig, **facts: Any) -> None:
    """Write a checkpoint in one step: a killed run leaves the old one."""
    with whole_file(path) as file:
        torch.save({"config": to_dict(config), "facts": facts, **weights}, file)


def restore(path: Path, parts: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Load every part of `checkpoint.pt`; the config must be the one that it was made with.

    Raises:
        ValueError: a damaged file, or another config.
    """
    saved = read_saved(path)
    tree = as_of_now(saved["config"])
    if tree != to_dict(config):
        changed = [k for k, v in to_dict(config).items() if tree.get(k) != v]
        raise ValueError(f"{path} was made with other options: {', '.join(changed)} differ")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return dict(saved["facts"])


def load_checkpoint(path: Path) -> tuple[Student, TrainConfig, dict[str, Any]]:
    """The student (eval mode), its config and the facts saved with it."""
    saved = read_saved(path)
    tree = as_of_now(saved["config"])
    tree["student"] |= {"pretrained": False, "init": ""}
    config = build(TrainConfig, tree, str(path))
    student = build_student(config)
    student.load_state_dict(saved["student"])
    return student.eval(), config, dict(saved["facts"])
