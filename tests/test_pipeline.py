from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
    assert classifier.predict([]).tolist() == classifier.decision_function([]).tolist() == []


def test_decisions_agree_with_probabilities(bundle: Path, flat: RGB, busy: RGB) -> None:
    """A calibration of another temperature and bias, for which the flat picture is real too."""
    detector = Detector(bundle, threads=1)
    calibration = detector.bundle.calibration
    assert calibration is not None
    flat_logit = float(detector.predict([flat])[0].logit or 0)
    moved = replace(calibration, temperature=2.0, bias=-(flat_logit + 1) / 2)
    detector.bundle = replace(detector.bundle, calibration=moved)
    classifier = DetectorClassifier(detector)
    assert flat_logit > 0
    assert classifier.predict([flat, busy]).tolist() == ["real", "real"]
    odds = classifier.decision_function([flat, busy])
    assert odds[0] == pytest.approx(0.5)
    fake = classifier.predict_proba([flat, busy])[:, 0]
    np.testing.assert_allclose(fake, 1 / (1 + np.exp(odds)), atol=1e-6)


def test_what_holds_nothing_to_judge_is_neither(detector: Detector) -> None:
    """The stand-in's logit for it is high, but the verdict doesn't rest on that."""
    blank = np.full((200, 240, 3), 128, np.uint8)
    assert detector.predict([blank])[0].note is not None
    assert Pipeline(detector)(blank, top_k=1) == [{"label": "unsure", "score": 1.0}]
    assert {one["label"]: one["score"] for one in Pipeline(detector)(blank)} == {
        "unsure": 1.0, "fake": 0.0, "real": 0.0,
    }  # fmt: skip
    classifier = DetectorClassifier(detector)
    assert classifier.predict([blank]).tolist() == ["unsure"]
    assert classifier.predict_proba([blank]).tolist() == [[0.5, 0.5]]
    assert classifier.decision_function([blank]).tolist() == [0.0]


def test_what_cannot_be_scored_is_named(detector: Detector, flat: RGB) -> None:
    with pytest.raises(ImageError, match="picture 1"):
        Pipeline(detector)([flat, b"junk"])


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_number_of_labels_that_is_none_is_refused(
    detector: Detector, flat: RGB, top_k: int
) -> None:
    with pytest.raises(ValueError, match=r"top_k is .*give 1 or 2"):
        Pipeline(detector)(flat, top_k=top_k)
