"""A short while of what `make fuzz` does for long."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from damage import seeds
from distildire.explain.storage import storage_of
from distildire.io.pictures import FORMATS, decode_bytes
from fuzz.mutator import damaged
from fuzz.run import Run
from fuzz.targets import TARGETS, Target, checked, sentence

INPUTS = 60


def test_seeds_are_read() -> None:
    for data in seeds():
        assert decode_bytes(data).shape[2] == 3
        assert storage_of(data).format in FORMATS


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_damaged_inputs_are_refused_in_words(target: Target) -> None:
    chance, files = random.Random(0), target.seeds()
    for data in files:
        target.check(data)
    for _ in range(INPUTS):
        checked(target, damaged(chance, files, target.words))


def test_the_damage_is_the_same_for_a_seed() -> None:
    files = TARGETS["bundles"].seeds()
    first, second = ([damaged(random.Random(i), files) for i in range(50)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 40


def test_what_is_no_sentence_is_told() -> None:
    for words in (None, "", "KeyError", "two\nlines", "x " * 1500):
        with pytest.raises(AssertionError):
            sentence(words)


@pytest.mark.skipif(sys.platform != "linux", reason="a process that is killed by a signal")
def test_a_crash_is_a_finding(tmp_path: Path) -> None:
    run = Run("pictures", 5, 0, tmp_path, crash)
    assert not run()
    ((kind, path),) = run.faults.items()
    assert "SIGABRT" in kind
    assert path.read_bytes() == b"hostile"


def crash(name: str, seed: str, until: float, current: Path, pipe: Any) -> None:
    current.write_bytes(b"hostile")
    pipe.send(("at", 0, 0))
    os.abort()
