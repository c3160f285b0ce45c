"""Configs that can't be used are refused, and the key is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from distildire.distill.config import TrainConfig
from distildire.io.config import ConfigError, build, load_config


def test_configs_name_their_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("optim: {steps: 7}\nstudent: {backbone: resnet18}\n")
    config = load_config(TrainConfig, path, ["optim.lr=0.5", "augment.scale=[0.5, 2]"])
    assert (config.optim.steps, config.optim.lr, config.augment.scale) == (7, 0.5, (0.5, 2))
    for text, match in (("optim: {stepz: 7}", "stepz"), ("[1]", "mapping"), ("a: {", "YAML"),
                        ("optim: {steps: many}", "steps"), ("optim: {steps: -1}", "steps is -1"),
                        ("optim: {lr: .nan}", "optim.lr is nan"), ("optim: {lr: -1}", "lr is -1"),
                        ("optim: {report_every: 0}", "report_every is 0"),
                        ("validation: {every: 0}", "every is 0"),
                        ("data: {manifests: m.csv}", r"give \[m.csv\]")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ConfigError, match=match):
            load_config(TrainConfig, path)
    for override, match in (("steps", "key=value"), ("=5", "key=value"),
                            ("optim.steps=[1", "--set optim.steps=.1: not valid YAML"),
                            ("name=2024-13-45", "--set name=")):  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            load_config(TrainConfig, path, [override])
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ConfigError, match=r"c\.yaml: not valid YAML"):
        load_config(TrainConfig, path)


@pytest.mark.parametrize("key", ["optim.report_every", "optim.batch", "validation.every"])
def test_a_step_of_nothing_is_refused(key: str) -> None:
    section, name = key.split(".")
    with pytest.raises(ConfigError, match=f"{key} is 0: give a number of at least 1"):
        build(TrainConfig, {section: {name: 0}})
