"""One tree of frozen dataclasses, read from YAML, with `key.sub=value` overrides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from distildire.io.text import words_of

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that can't be used; the message names the key."""


def load_config(kind: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass `kind`; unknown keys are errors."""
    tree = _read(Path(path))
    tree.pop("task", None)
    return build(kind, with_overrides(tree, overrides), str(path))


def task_of(path: str | Path) -> str:
    """What a config file is for: its key `task`, by default "detector"."""
    return str(_read(Path(path)).get("task", "detector"))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    try:
        tree = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no text, or a date that is none
        raise ConfigError(f"{path}: not valid YAML: {words_of(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a mapping of keys is needed, not a {type(tree).__name__}")
    return tree


def with_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `tree` with every `a.b=value` set; values are read as YAML."""
    result = dict(tree)
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {override}: use key=value, for instance optim.steps=500")
        *parents, leaf = key.strip().split(".")
        node = result
        for parent in parents:
            child = node.get(parent)
            node[parent] = dict(child) if isinstance(child, Mapping) else {}
            node = node[parent]
        try:
            node[leaf] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"--set {override}: not valid YAML: {words_of(error)}") from None
    return result


def build(kind: type[T], tree: Mapping[str, Any], where: str = "config") -> T:
    """Make a dataclass tree from nested mappings; unknown keys and wrong types are errors."""
    import dacite

    try:
        return dacite.from_dict(
            kind,
            tree,
            dacite.Config(
                strict=True, cast=[tuple], type_hooks={float: float, tuple[str, ...]: _texts}
            ),
        )
    except (dacite.DaciteError, ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {words_of(error)}") from error


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):  # a text would be taken apart into its letters
        raise ConfigError(f"{value!r} stands where a list is needed: give [{value}]")
    return tuple(value)


def refuse_under(config: Any, where: str = "", **least: float) -> None:
    """Refuse options of a config that are under their least value, infinite or no numbers.

    Raises:
        ConfigError: the first such option.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        if not lowest <= value < math.inf:
            raise ConfigError(f"{where}{name} is {value}: give a number of at least {lowest}")


def to_dict(config: Any) -> dict[str, Any]:
    """The tree as plain lists, numbers and strings, fit for YAML and JSON."""
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"{config!r} is not a config")
    return {key: _plain(value) for key, value in asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
