"""No reader of a checkpoint runs what is pickled in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from distildire.distill import load_student
from distildire.distill.checkpoint import load_checkpoint, restore
from distildire.distill.config import TrainConfig
from distildire.distill.start import read_trained
from distildire.noise import load_noise_source


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


READERS = {
    "load_noise_source": load_noise_source,
    "load_student": load_student,
    "load_checkpoint": load_checkpoint,
    "read_trained": lambda path: read_trained(str(path)),
    "restore": lambda path: restore(path, {}, TrainConfig()),
}


@pytest.mark.parametrize("name", READERS)
def test_code_in_a_checkpoint_is_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "best.pt"
    for zipped in (True, False):
        content = {"student": {"x": _Code()}, "model": {}, "config": {}}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"best\.pt: (refused|damaged)"):
            READERS[name](path)
        assert not (tmp_path / "ran").exists()
    # Read as any pickle it would have run.
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").is_dir()
