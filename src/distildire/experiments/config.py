"""What an experiment is: a base run, arms that change it, seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distildire.distill.config import TrainConfig
from distildire.io.config import ConfigError, build, load_config, with_overrides

EXPERIMENTS = {
    "no-distill": "Does imitating a teacher help?",
    "lambda": "How much should imitating the teacher weigh?",
    "eps0": "Is eps0 worth its place, with labels or distilled?",
    "noise-branch": "How should the first-step noise enter, and is it of use at all?",
    "teachers": "Which teacher is worth imitating?",
    "bodies": "Which transformer, and how should it be trained?",
    "backbones": "What accuracy does a millisecond buy?",
    "noise-sources": "Which network should predict the noise?",
    "cross-generator": "What does training on one generator tell of another?",
}
"""The experiments by name, each with the question that it asks."""


@dataclass(frozen=True)
class Families:
    """Arms made from the generators of the manifest, for `cross-generator`."""

    prefixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Family -> how its generators' names begin."""
    only: bool = True
    """An arm for each family that is trained on its fakes alone."""
    without: bool = True
    """An arm for each family whose sources are held out (leave one generator out)."""
    min_images: int = 100
    """Fakes under which a family gets no arm."""
    test_limit: int = 100
    """Largest number of test images per source (0: all)."""


@dataclass(frozen=True)
class ExperimentConfig:
    """One YAML of configs/experiments."""

    base: dict[str, Any]
    """The tree of a `TrainConfig`, with a small budget that every arm shares."""
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Arm -> what it changes, by dotted key. The first arm is the one others are compared to."""
    seeds: tuple[int, ...] = (0, 1, 2)
    on_request: tuple[str, ...] = ()
    """Arms that run only when they are named: slow, or in need of weights from elsewhere."""
    families: Families | None = None

    def arm(self, name: str, seed: int) -> TrainConfig:
        """The training run of one arm and seed.

        Raises:
            ConfigError: unknown arm, key or value.
        """
        if name not in self.arms:
            raise ConfigError(f"no arm {name!r} (arms: {', '.join(self.arms) or 'none'})")
        # JSON is YAML: the values pass unchanged.
        changes = [f"{key}={json.dumps(value)}" for key, value in _flat(self.arms[name])]
        tree = with_overrides(self.base, [f"name={json.dumps(name)}", *changes])
        config = build(TrainConfig, tree, f"arm {name}")
        return replace(config, optim=replace(config.optim, seed=seed))

    def chosen(self, names: Sequence[str] = ()) -> list[str]:
        """The arms that run: those named, or all but the ones on request."""
        for name in names:
            if name not in self.arms:
                raise ConfigError(f"no arm {name!r} (arms: {', '.join(self.arms) or 'none'})")
        return [a for a in self.arms if (a in names if names else a not in self.on_request)]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of a nested mapping, so that an arm changes a key, not its section."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def load_experiment(
    name: str, path: Path, overrides: Sequence[str] = (), seeds: Sequence[int] = ()
) -> ExperimentConfig:
    """Read an experiment's YAML; `overrides` are `base.optim.steps=100` and the like.

    Raises:
        ConfigError: unknown experiment, unreadable file, unknown key or wrong value.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(f"no experiment {name!r} (there are {', '.join(EXPERIMENTS)})")
    config = load_config(ExperimentConfig, path, overrides)
    if seeds:
        config = replace(config, seeds=tuple(seeds))
    if not config.arms and config.families is None:
        raise ConfigError(f"{path}: no arms")
    for arm in config.arms:
        config.arm(arm, 0)  # a wrong key shows now, not after hours of other arms
    return config
