from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import standin
from distildire import Detector


def test_graph_agrees_with_numpy(
    detector: Detector, flat: NDArray[np.uint8], busy: NDArray[np.uint8]
) -> None:
    for rgb in (flat, busy):
        crops = detector.bundle.preprocessing(rgb)
        np.testing.assert_allclose(
            detector.score_crops(crops), standin.expected_logit(crops), rtol=1e-4, atol=1e-4
        )


def test_verdicts(detector: Detector, flat: NDArray[np.uint8], busy: NDArray[np.uint8]) -> None:
    assert [v.verdict for v in detector.predict([flat, busy])] == ["fake", "real"]
