"""The facade: paths, bytes, pictures and arrays in, verdicts out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.bundle import BundleError, load_bundle
from distildire.calibration import Calibration, Label
from distildire.io.hashing import sha256_of
from distildire.io.pictures import (
    MAX_PIXELS,
    RGB,
    ImageError,
    Source,
    decode,
    decode_bytes,
    read_bytes,
)
from distildire.io.progress import Done
from distildire.runtime.sessions import Sessions, usable_cores
from distildire.verdict import Verdict, not_scored

DEFAULT_FPR = 0.01

MAX_WORKERS = 8
"""Pictures decoded and scored side by side at most, each by one core: the largest take 300 MB."""


@dataclass(frozen=True)
class Loaded:
    """One item made ready for the network, or what is wrong with it."""

    path: str
    """To appear in the verdict."""
    sha256: str | None = None
    """Of the file's bytes; of the pixels for pictures and arrays."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the whole picture."""
    crops: NDArray[np.uint8] | None = None
    """uint8 [crops, S, S, 3]; None where `error` is set."""
    error: str | None = None


class Detector:
    """A trained detector.

    >>> Detector().predict(["photo.jpg"])[0].verdict
    'real'
    """

    def __init__(
        self,
        model: str | Path = "nano",
        *,
        fpr: float = DEFAULT_FPR,
        kind: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Open a bundled model by name, or a bundle folder.

        Args:
            model: name or folder; see `distildire models list`.
            fpr: error budget of the verdicts, 0..0.5: at most this share of real pictures
                is called fake, as far as the calibration pictures tell.
            kind: use the thresholds of this kind of pictures, where the calibration has them
                (`distildire calibrate --by`).
            threads: cores to use; all that the process may use by default.

        Raises:
            BundleError: the model is missing or damaged; a model that is not calibrated yet
                gives logits, and raises when it is asked for a verdict.
            ValueError: `fpr` out of range, or an unknown `kind`.
        """
        self.bundle = load_bundle(model)
        self.fpr, self.kind = fpr, kind
        if kind is not None:
            self.bundle = replace(self.bundle, calibration=self._calibration().for_kind(kind))
        if self.bundle.calibration is not None:
            self._thresholds(fpr)
        self.cores = threads or usable_cores()
        # Many pictures are scored one a core: no core waits for another in the middle of a
        # picture, and one picture at a time stays in the cache where a batch does not. A torch
        # bundle has threads in common, and weights too large to load twice.
        if self.bundle.torch:
            self._sessions = Sessions(self.bundle, self.cores, 1)
        else:
            self._sessions = Sessions(self.bundle, 1, min(MAX_WORKERS, self.cores))

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.cores)

    @property
    def name(self) -> str:
        """Of the model."""
        return self.bundle.name

    def predict(
        self,
        items: Source | Iterable[Source],
        fpr: float | None = None,
        *,
        progress: Done | None = None,
    ) -> list[Verdict]:
        """Verdicts in the order of `items`; a picture that can't be scored has `error` set."""
        several: Any = items
        if isinstance(items, str | Path | bytes | np.ndarray) or hasattr(items, "convert"):
            several = [items]
        lone = isinstance(several, list) and len(several) == 1
        verdicts: list[Verdict] = []
        for verdict in self._alone(several[0], fpr) if lone else self.stream(several, fpr):
            verdicts.append(verdict)
            if progress is not None:
                progress(len(verdicts))
        return verdicts

    def stream(self, items: Iterable[Source], fpr: float | None = None) -> Iterator[Verdict]:
        """Verdicts one by one, in order, in bounded memory; each core has its own picture."""
        budget = self.fpr if fpr is None else fpr
        self._thresholds(budget)
        workers = min(MAX_WORKERS, self.cores)
        source = iter(items)
        waiting: deque[Future[list[Verdict]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            while True:
                while len(waiting) < 4 * workers and (item := next(source, None)) is not None:
                    waiting.append(pool.submit(self._load_and_judge, item, budget))
                if not waiting:
                    return
                yield from waiting.popleft().result()

    def _alone(self, item: Source, fpr: float | None) -> list[Verdict]:
        budget = self.fpr if fpr is None else fpr
        self._thresholds(budget)
        return self.judge([self.load(item)], [budget])

    def _load_and_judge(self, item: Source, fpr: float) -> list[Verdict]:
        return self.judge([self.load(item)], [fpr], alone=False)

    def logit(self, rgb: RGB) -> float:
        """Uncalibrated score of one decoded picture, uint8 [H, W, 3]: mean over its crops."""
        return float(self.score_crops(self.bundle.preprocessing(rgb)).mean())

    def score_crops(self, crops: NDArray[np.uint8], *, alone: bool = True) -> NDArray[np.float32]:
        """Crops uint8 [N, S, S, 3] -> logits [N]; `alone` as in `run_graph`."""
        return self.run_graph("logit", crops, alone=alone)

    def eps0(self, rgb: RGB) -> NDArray[np.float32]:
        """First-step noise of the first crop: [crop, crop, 3]."""
        noise = self.run_graph("eps0", self.bundle.preprocessing(rgb)[:1])[0]
        return np.ascontiguousarray(noise.transpose(1, 2, 0))

    @property
    def graph_outputs(self) -> frozenset[str]:
        """What the graph can give; `logit` is always there, `cam` and `eps0` mostly."""
        return frozenset(output.name for output in self._sessions.get_outputs())

    def run_graph(
        self, output: str, crops: NDArray[np.uint8], *, alone: bool = True
    ) -> NDArray[np.float32]:
        """One output of the graph for crops uint8 [N, S, S, 3]; its first axis is N.

        `alone`: the crops are shared out among the cores; else one core takes them all, for
        callers that are many. The numbers are the same.
        """

        def run(part: NDArray[np.uint8]) -> NDArray[np.float32]:
            return self._sessions.run([output], {"rgb": part})[0]

        size = self._sessions.size
        if not alone or self.cores == 1 or self.bundle.torch or len(crops) <= size:
            return run(crops)
        parts = [crops[start : start + size] for start in range(0, len(crops), size)]
        return np.concatenate(list(self._workers.map(run, parts)))

    def warm_up(self) -> None:
        """Take the memory that scoring will need, for a service: it stays level afterwards."""
        self._sessions.warm_up()

    def verdict_of(self, logit: float, fpr: float | None = None) -> tuple[float, Label]:
        """(calibrated probability of fake, verdict) of a logit."""
        calibration = self._calibration()
        budget = self.fpr if fpr is None else fpr
        return float(calibration.probability(logit)), calibration.verdict(logit, budget)

    def _calibration(self) -> Calibration:
        if self.bundle.calibration is None:
            raise BundleError(
                f"{self.name}: not calibrated yet: run distildire calibrate MODEL MANIFEST"
            )
        return self.bundle.calibration

    def _thresholds(self, fpr: float) -> tuple[float, float]:
        return self._calibration().thresholds(fpr)

    def load(self, item: Source, *, name: str = "", max_pixels: int = MAX_PIXELS) -> Loaded:
        """Read, hash, decode and cut one item; what is wrong with it goes into `error`.

        Args:
            item: a path, the bytes of a file, a picture or an array.
            name: to appear as the path of what is no path itself.
            max_pixels: larger pictures are refused.
        """
        path, sha256 = name, None
        try:
            if isinstance(item, str | Path):
                path = os.fspath(item)
                item = read_bytes(Path(item))
            if isinstance(item, bytes):
                sha256 = sha256_of(item)
                rgb = decode_bytes(item, max_pixels=max_pixels)
            else:
                rgb = decode(item, max_pixels=max_pixels)
                sha256 = sha256_of(rgb.tobytes())
        except (ImageError, TypeError, ValueError) as error:
            return Loaded(path, sha256, error=str(error))
        size = (rgb.shape[1], rgb.shape[0])
        return Loaded(path, sha256, size, self.bundle.preprocessing(rgb))

    def judge(
        self, batch: Sequence[Loaded], fprs: Sequence[float], *, alone: bool = True
    ) -> list[Verdict]:
        """Score a batch in one run of the graph; each item has an error budget of its own.

        `alone` as in `run_graph`.
        """
        crops = [item.crops for item in batch if item.crops is not None]
        logits: Iterator[float] = iter(())
        if crops:
            scores = self.score_crops(np.concatenate(crops), alone=alone).reshape(len(crops), -1)
            logits = iter(scores.mean(axis=1, dtype=np.float64).tolist())
        verdicts = []
        for item, fpr in zip(batch, fprs, strict=True):
            if item.crops is None:
                error = item.error or "not scored"
                verdicts.append(not_scored(item.path, self.name, error, item.sha256))
                continue
            logit = next(logits)
            probability, verdict = self.verdict_of(logit, fpr)
            verdicts.append(
                Verdict(
                    item.path, item.sha256, round(probability, 6), round(logit, 6), verdict,
                    self.name, *item.size,
                )
            )  # fmt: skip
        return verdicts
