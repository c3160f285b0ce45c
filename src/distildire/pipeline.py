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
        return [p for p, _ in probabilities(self.detector, images)]

    @staticmethod
    def _one(fake: float, top_k: int | None) -> Scores:
        pairs = [("fake", fake), ("real", 1.0 - fake)]
        pairs.sort(key=lambda pair: -pair[1])
        return [{"label": label, "score": score} for label, score in pairs[:top_k]]


class DetectorClassifier:
    """`predict`, `predict_proba` and `decision_function` over pictures.

    `predict` decides at a probability of one half, as scikit-learn does; verdicts with an
    error budget and an unsure band are `Detector.predict`'s.
    """

    classes_: NDArray[np.str_] = np.array(["fake", "real"])

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def predict_proba(self, images: Iterable[Source]) -> NDArray[np.float64]:
        """[N, 2] calibrated probabilities, columns as in `classes_`.

        Raises:
            ImageError: a picture that can't be scored.
        """
        fake = np.array([p for p, _ in probabilities(self.detector, images)], float)
        return np.stack([fake, 1.0 - fake], axis=1)

    def decision_function(self, images: Iterable[Source]) -> NDArray[np.float64]:
        """[N] scores that rise with `classes_[1]`, the camera: the negated logits."""
        return np.array([-logit for _, logit in probabilities(self.detector, images)], float)

    def predict(self, images: Iterable[Source]) -> NDArray[np.str_]:
        """[N] "fake" or "real"."""
        columns = self.predict_proba(images).argmax(axis=1)
        return np.asarray(self.classes_[columns])


def pipeline(model: str = "nano", **options: Any) -> Pipeline:
    """Open a bundled model by name, or a bundle folder, as a pipeline.

    Raises:
        BundleError: the model is missing, damaged or not calibrated.
    """
    return Pipeline(Detector(model, **options))


def probabilities(detector: Detector, images: Iterable[Source]) -> list[tuple[float, float]]:
    """(calibrated probability of fake, logit) of each picture.

    Raises:
        ImageError: the first picture that can't be scored, with its place in the list.
    """
    found = []
    for i, verdict in enumerate(detector.stream(images)):
        if verdict.probability is None or verdict.logit is None:
            raise ImageError(f"picture {i}: {verdict.error}")
        found.append((verdict.probability, verdict.logit))
    return found
