"""Hashes of what a picture shows, against slow versions, SciPy, and what manifests hold."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distildire.io.perceptual_hashes import dhash, look, perceptual_hash
from distildire.io.preprocessing import jpeg, resize


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    y, x = np.mgrid[0:300, 0:400]
    waves = [
        128 + 60 * np.sin(x / (30 + 9 * k)) * np.cos(y / 41) + 20 * (x > 200) for k in range(3)
    ]
    return np.stack(waves, 2).astype(np.uint8)


def bits_apart(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def test_perceptual_hash_survives_copying(photo: np.ndarray) -> None:
    first = perceptual_hash(photo)
    assert bits_apart(first, perceptual_hash(jpeg(photo, 40))) <= 4
    assert bits_apart(first, perceptual_hash(resize(photo, 200, 150))) <= 4
    assert bits_apart(first, perceptual_hash(photo[::-1])) > 12


def test_perceptual_hash_against_scipy(photo: np.ndarray) -> None:
    fft = pytest.importorskip("scipy.fft")
    grey = Image.fromarray(photo).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    low = fft.dctn(np.asarray(grey, float), type=2)[:8, :8].ravel()
    expected = "".join("1" if bit else "0" for bit in low > np.median(low[1:]))
    assert perceptual_hash(photo) == f"{int(expected, 2):016x}"


def test_look_of_steps_by_hand() -> None:
    rising = np.repeat(np.arange(0, 240, 20, dtype=np.uint8)[None], 90, 0).repeat(10, 1)
    assert look(Image.fromarray(rising)) == "f" * 16
    assert look(Image.fromarray(rising[:, ::-1].copy())) == "0" * 16


def test_look_is_what_manifests_hold(photo: np.ndarray) -> None:
    assert look(Image.fromarray(photo)) == "9c9c7363739c9c9c"


def test_dhash_against_a_slow_version() -> None:
    coarse = np.random.default_rng(1).integers(0, 256, (7, 9), dtype=np.uint8)
    grey = Image.fromarray(coarse).resize((90, 80), Image.Resampling.BICUBIC)
    pixels = np.asarray(grey, float)
    cells = pixels.reshape(8, 10, 9, 10).mean(axis=(1, 3))
    expected = 0
    for y in range(8):
        for x in range(8):
            expected = expected << 1 | int(round(cells[y, x + 1]) > round(cells[y, x]))
    assert bin(dhash(grey) ^ expected).count("1") <= 1
