"""Fixtures that every part of the suite shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import standin
from distildire import Detector


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the stand-in detector."""
    return standin.make_bundle(tmp_path_factory.mktemp("bundle") / "standin")


@pytest.fixture(scope="session")
def detector(bundle: Path) -> Detector:
    """The stand-in detector, on one thread."""
    return Detector(bundle, threads=1)


@pytest.fixture(scope="session")
def flat() -> NDArray[np.uint8]:
    """A smooth ramp [200, 240, 3], which the stand-in calls fake."""
    ramp = np.linspace(60, 180, 240)[None, :, None]
    return np.broadcast_to(ramp, (200, 240, 3)).astype(np.uint8).copy()


@pytest.fixture(scope="session")
def busy() -> NDArray[np.uint8]:
    """Noise [200, 240, 3], which the stand-in calls real."""
    return np.random.default_rng(7).integers(60, 200, (200, 240, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, busy: NDArray[np.uint8], flat: NDArray[np.uint8]) -> Path:
    """A folder of two pictures, one in a folder below with a name that is not ASCII."""
    root = tmp_path / "pictures"
    (root / "sub folder").mkdir(parents=True)
    Image.fromarray(busy).save(root / "sub folder/Ärger über Öl.png")
    Image.fromarray(flat).save(root / "a.png")
    return root
