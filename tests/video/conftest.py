"""Frames of which clips are made."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

RGB = NDArray[np.uint8]


@pytest.fixture(scope="module")
def real_frame(busy: RGB) -> RGB:
    """Grain that survives H.264."""
    return busy


@pytest.fixture(scope="module")
def fake_frame(flat: RGB) -> RGB:
    """Of another scene: darker."""
    return flat // 2
