"""Damage, drawn from a seeded generator: of bytes, of known words, of JSON trees."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Sequence
from typing import Any

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 100_000, 2**24)

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 5, 1e9, -1e308, float("nan"), float("inf"), 2**63, 10**400, "", "0",
    "x", "../../x", "a\0b", "\ud800", "9" * 5000, [], [[]], [None], ["x"] * 3, [0.0] * 300, {},
    {"x": {}},
)  # fmt: skip


def damaged(chance: random.Random, files: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """One of `files` with one to twelve faults; `words` are put in where they may matter."""
    data = bytearray(chance.choice(files))
    if data[:1] == b"{" and chance.random() < 0.6:
        return _tree_damaged(chance, bytes(data))
    for _ in range(min(chance.randint(1, 12), chance.randint(1, 12))):
        if not data:
            break
        _damage(chance, data, files, words)
    return bytes(data)


def _damage(
    chance: random.Random, data: bytearray, files: Sequence[bytes], words: Sequence[bytes]
) -> None:
    # Headers hold the sizes and tables that readers trust: they are hit as often as the rest.
    at = chance.randrange(min(chance.choice((64, 512, len(data))), len(data)))
    faults = ["flip", "flip", "cut", "write", "number", "double", "splice", "drop"]
    fault = chance.choice([*faults, "word", "word"] if words else faults)
    if fault == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif fault == "cut":
        del data[at:]
    elif fault == "drop":
        del data[at : at + chance.randint(1, 64)]
    elif fault == "write":
        data[at : at + 4] = chance.randbytes(chance.randint(1, 8))
    elif fault == "number":
        form = chance.choice(("<I", ">I", "<H", ">H"))
        value = chance.choice(NUMBERS) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
        data[at : at + struct.calcsize(form)] = struct.pack(form, value)
    elif fault == "double":
        piece = data[at : at + chance.randint(1, 256)]
        data[at:at] = piece * chance.choice((1, 1, 1, 50))
    elif fault == "word":
        word = chance.choice(words)
        data[at : at + chance.choice((0, len(word)))] = word
    else:
        other = chance.choice(files)
        data[at:] = other[chance.randrange(max(1, len(other))) :]


def _tree_damaged(chance: random.Random, data: bytes) -> bytes:
    """JSON with another value, no value or one more in one to four places."""
    try:
        tree = json.loads(data)
    except ValueError:
        return data
    for _ in range(chance.randint(1, 4)):
        places = list(_places(tree))
        if not places:
            break
        holder, key = chance.choice(places)
        fault = chance.random()
        if fault < 0.2:
            del holder[key]
        elif fault < 0.3 and isinstance(holder, dict):
            holder[f"{key}x"] = holder[key]
        else:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def _places(tree: Any) -> list[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(min(len(tree), 5))
    found = [(tree, key) for key in keys]
    for key in keys:
        if isinstance(tree[key], dict | list):
            found += _places(tree[key])
    return found
