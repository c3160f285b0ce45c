"""Damaged files are refused in words, soon, and without more memory than stated.

`tests/fuzz_images.py` goes on for long, with files of one's own.
"""

from __future__ import annotations

import resource
import time

import numpy as np
from hypothesis import HealthCheck, given, settings

from damage import damaged, seeds
from distildire.explain.provenance import file_facts
from distildire.io.pictures import FORMATS, ImageError, decode_bytes

MAX_PIXELS = 4_000_000
MAX_GROWTH = 300 * 2**20
"""Bytes of resident memory that decoding up to MAX_PIXELS may add."""

MAX_SECONDS = 2.0


def check(data: bytes) -> None:
    before, started = peak(), time.process_time()
    try:
        rgb = decode_bytes(data, max_pixels=MAX_PIXELS)
    except ImageError as error:
        words = str(error)
        assert words
        assert "\n" not in words
    else:
        assert rgb.dtype == np.uint8
        assert rgb.ndim == 3
        assert rgb.shape[2] == 3
        assert rgb.shape[0] * rgb.shape[1] <= MAX_PIXELS
        file_facts(data)
    assert time.process_time() - started < MAX_SECONDS
    assert peak() - before < MAX_GROWTH


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_seeds_are_read() -> None:
    for data in seeds():
        assert decode_bytes(data).shape[2] == 3
        assert file_facts(data).format in FORMATS


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_damaged_files_are_refused_in_words(data: bytes) -> None:
    check(data)
