"""Score the pictures of a manifest with an ONNX bundle, calibrated or not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distildire.bundle import Bundle
from distildire.detector import open_session
from distildire.images import RGB, ImageError, decode, equalize

if TYPE_CHECKING:
    import pandas as pd


def score_manifest(
    bundle: Bundle,
    table: pd.DataFrame,
    *,
    equalized: bool = True,
    degrade: Callable[[RGB], RGB] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Mean logit of every row's picture, nan where it can't be read.

    Args:
        bundle: the model.
        table: as `read_manifest` gives it.
        equalized: give every picture one history (`equalize`) first.
        degrade: then this, for instance a JPEG pass.
        progress: called with (done, total).
    """
    session = open_session(bundle)

    def load(path: str) -> NDArray[np.uint8] | None:
        try:
            rgb = decode(path)
        except ImageError:
            return None
        rgb = equalize(rgb) if equalized else rgb
        return bundle.preprocessing(degrade(rgb) if degrade else rgb)

    scores = np.full(len(table), np.nan)
    with ThreadPoolExecutor(2) as pool:
        for i, crops in enumerate(pool.map(load, table["path"])):
            if crops is not None:
                scores[i] = session.run(["logit"], {"rgb": crops})[0].mean()
            if progress is not None:
                progress(i + 1, len(table))
    return scores
