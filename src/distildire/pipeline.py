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

        A picture that holds nothing to judge has one half each, "real" first: `Detector.predict`
        tells it from others.

        Args:
            images: one picture or a list.
            top_k: labels kept; both by default.

        Raises:
            ImageError: a picture that can't be scored.
            ValueError: `top_k` under 1.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: give 1 or 2, or None for both labels")
        if isinstance(images, list):
            return [self._one(probability, top_k) for probability in self._fake(images)]
        return self._one(self._fake([images])[0], top_k)

    def _fake(self, images: Iterable[Source]) -> list[float]:
        return [verdict.probability or 0.0 for verdict in scored(self.detector, images)]

    @staticmethod
    def _one(fake: float, top_k: int | None) -> Scores:
        pairs = [("real", 1.0 - fake), ("fake", fake)]  # of equals, the first stays first
        pairs.sort(key=lambda pair: -pair[1])
        return [{"label": label, "score": score} for label, score in pairs[:top_k]]


class DetectorClassifier:
    """`predict`, `predict_proba` and `decision_function` over pictures.

    `predict` calls "fake" what is over a probability of one half. A picture that holds nothing
    to judge has just that, is called "real", and has 0 from `decision_function`. Verdicts with
    an error budget and an unsure band, which tell such pictures from others, are
    `Detector.predict`'s.
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
        """[N] "fake" or "real"."""
        fake = self.predict_proba(images)[:, 0] > 0.5
        return np.asarray(self.classes_[np.where(fake, 0, 1)])


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
