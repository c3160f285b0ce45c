"""A dataclass out of a JSON tree that others may have written: each value of its field's type."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def from_tree(kind: type[T], tree: Any, where: str, *, known: bool = False) -> T:
    """Make a `kind` of a tree.

    Args:
        kind: a dataclass of numbers, texts, tuples of them, mappings, and None.
        tree: what JSON gave.
        where: names the tree in messages.
        known: refuse keys that it has no field for; else they are passed over.

    Raises:
        ValueError: no mapping, a missing field, an unknown one, or a value of another type; NaN and
            infinities are no numbers.
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where} is no mapping")
    hints = get_type_hints(kind)
    if known and (unknown := sorted(map(str, set(tree) - set(hints)))):
        raise ValueError(f"{where} has {_short(unknown[0])}, which is not known here")
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in tree:
            name = f"{where}.{field.name}"
            values[field.name] = _value(hints[field.name], tree[field.name], name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{where} has no {field.name}")
    return kind(**values)


def _value(hint: Any, value: Any, name: str) -> Any:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in inside:
            return None
        (hint,) = [one for one in inside if one is not types.NoneType]
        return _value(hint, value, name)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is no list")
        return tuple(_value(inside[0], one, f"{name}[{i}]") for i, one in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is no mapping")
        return dict(value)
    if _fits(hint, value):
        return float(value) if hint is float else value
    raise ValueError(f"{name} is {_short(value)}: {_WORDS[hint]} is needed")


def _fits(hint: Any, value: Any) -> bool:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) < 1e300 and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _short(value: Any) -> str:
    try:
        words = repr(value)
    except ValueError:  # Python refuses to write numbers of thousands of digits
        return "a huge number"
    return words if len(words) <= 40 else f"{words[:37]}..."
