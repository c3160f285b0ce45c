"""Random pictures with a little grain."""

from __future__ import annotations

import numpy as np
from PIL import Image


def picture(rng: np.random.Generator, width: int = 160, height: int = 128) -> Image.Image:
    """A smooth random picture with a little grain: no two are alike."""
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 3, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8))
