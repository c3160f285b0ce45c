from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from distildire import Detector
from distildire.io.pictures import ImageError
from distildire.pipeline import DetectorClassifier, Pipeline

RGB = NDArray[np.uint8]


def test_answers_like_transformers(detector: Detector, flat: RGB, busy: RGB) -> None:
    pipe = Pipeline(detector)
    one = pipe(flat)
    assert [pair["label"] for pair in one] == ["fake", "real"]
    assert sum(pair["score"] for pair in one) == pytest.approx(1)
    assert pipe([flat, busy])[0] == one
    assert pipe([busy], top_k=1)[0][0]["label"] == "real"
    assert pipe([]) == []


def test_answers_like_scikit_learn(detector: Detector, flat: RGB, busy: RGB) -> None:
    classifier = DetectorClassifier(detector)
    assert classifier.predict([flat, busy]).tolist() == ["fake", "real"]
    proba = classifier.predict_proba([flat, busy])
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    verdicts = detector.predict([flat, busy])
    np.testing.assert_allclose(proba[:, 0], [v.probability for v in verdicts])
    np.testing.assert_allclose(
        classifier.decision_function([flat, busy]), [-(v.logit or 0) for v in verdicts]
    )


def test_what_cannot_be_scored_is_named(detector: Detector, flat: RGB) -> None:
    with pytest.raises(ImageError, match="picture 1"):
        Pipeline(detector)([flat, b"junk"])


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_number_of_labels_that_is_none_is_refused(
    detector: Detector, flat: RGB, top_k: int
) -> None:
    with pytest.raises(ValueError, match=r"top_k is .*give 1 or 2"):
        Pipeline(detector)(flat, top_k=top_k)
