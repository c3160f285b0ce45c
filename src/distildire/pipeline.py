"""The detector with the calling forms of other libraries.

`pipeline` answers like an image-classification pipeline of Hugging Face transformers, so
that it can stand where one stood; `DetectorClassifier` like a fitted scikit-learn classifier.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distildire.detector import Detector
from distildire.io.pictures import ImageError, Source
from distildire.verdict import Verdict

Scores: TypeAlias = list[dict[str, Any]]
"""`[{"label": "fake", "score": 0.97}, {"label": "real", "score": 0.03}]`, highest first."""


class Pipeline:
    """Callable on a path, bytes, a PIL image or a uint8 array, or on a list of them.

    >>> Pipeline(Detector())("photo.jpg")
    [{'label': 'real', 'score': 0.98}, {'label': 'fake', 'score': 0.02}]
    """

    task = "image-classification"

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def __call__(
        self, images: Source | list[Source], *, top_k: int | None = None
    ) -> Scores | list[Scores]:
        """Labels with calibrated probabilities, highest first; a list for a list.

        A picture that holds nothing to judge is "unsure" with a score of 1, neither of the others.

        Args:
            images: one picture or a list.
            top_k: labels kept; all by default.

        Raises:
            ImageError: a picture that can't be scored.
            ValueError: `top_k` under 1.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: give 1 or 2, or None for both labels")
        if isinstance(images, list):
            return [self._one(verdict, top_k) for verdict in scored(self.detector, images)]
        return self._one(scored(self.detector, [images])[0], top_k)

    @staticmethod
    def _one(verdict: Verdict, top_k: int | None) -> Scores:
        fake = verdict.probability or 0.0
        pairs = [("fake", fake), ("real", 1.0 - fake)]
        if verdict.note is not None:
            pairs = [("unsure", 1.0), ("fake", 0.0), ("real", 0.0)]
        pairs.sort(key=lambda pair: -pair[1])
        return [{"label": label, "score": score} for label, score in pairs[:top_k]]


class DetectorClassifier:
    """`predict`, `predict_proba` and `decision_function` over pictures.

    `predict` calls "fake" what is over a probability of one half, and "real" what is under it. A
    picture that holds nothing to judge has one half from `predict_proba`, 0 from
    `decision_function`, and is "unsure", which is none of `classes_`. Verdicts with an error
    budget and an unsure band are `Detector.predict`'s.
    """

    classes_: NDArray[np.str_] = np.array(["fake", "real"])

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def predict_proba(self, images: Iterable[Source]) -> NDArray[np.float64]:
        """[N, 2] calibrated probabilities, columns as in `classes_`.

        Raises:
            ImageError: a picture that can't be scored.
        """
        fake = np.array([v.probability for v in scored(self.detector, images)], float)
        return np.stack([fake, 1.0 - fake], axis=1)

    def decision_function(self, images: Iterable[Source]) -> NDArray[np.float64]:
        """[N] scores that rise with `classes_[1]`, the camera: calibrated log-odds.

        Raises:
            ImageError: a picture that can't be scored.
        """
        verdicts = scored(self.detector, images)
        calibration = self.detector.bundle.calibration
        assert calibration is not None  # without one there is no verdict
        logits = np.array([verdict.logit for verdict in verdicts], float)
        odds = -calibration.log_odds(logits)
        return np.where([verdict.note is None for verdict in verdicts], odds, 0.0)

    def predict(self, images: Iterable[Source]) -> NDArray[np.str_]:
        """[N] "fake" or "real", "unsure" where there is nothing to judge.

        Raises:
            ImageError: a picture that can't be scored.
        """
        verdicts = scored(self.detector, images)
        judged = [verdict.note is None for verdict in verdicts]
        fake = np.array([verdict.probability for verdict in verdicts], float) > 0.5
        return np.where(judged, self.classes_[np.where(fake, 0, 1)], "unsure")


def pipeline(model: str = "nano", **options: Any) -> Pipeline:
    """Open a bundled model by name, or a bundle folder, as a pipeline.

    Raises:
        BundleError: the model is missing, damaged or not calibrated.
    """
    return Pipeline(Detector(model, **options))


def scored(detector: Detector, images: Iterable[Source]) -> list[Verdict]:
    """The verdict of each picture, all of them with a score.

    Raises:
        ImageError: the first picture that can't be scored, with its place in the list.
    """
    verdicts = []
    for i, verdict in enumerate(detector.stream(images)):
        if verdict.error is not None:
            raise ImageError(f"picture {i}: {verdict.error}")
        verdicts.append(verdict)
    return verdicts
