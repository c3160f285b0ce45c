"""The facade: paths, bytes, pictures and arrays in, verdicts out."""

from __future__ import annotations

import ctypes
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distildire.bundle import BundleError, load_bundle
from distildire.calibration import Calibration, Label
from distildire.io.cores import over_cores, usable_cores
from distildire.io.pictures import MAX_PIXELS, RGB, ImageError, Source
from distildire.io.progress import Done
from distildire.loading import Given, Loaded, held_by, is_file, load
from distildire.runtime.engines import checked_device
from distildire.runtime.sessions import GPU_CROPS, Sessions
from distildire.verdict import Verdict, not_scored

log = logging.getLogger(__name__)

DEFAULT_FPR = 0.01

NO_EVIDENCE = 0.5
"""Probability of fake of a picture in which there is nothing to judge: the equal shares."""

NO_NUMBER = "the model gives no number for it"
"""What is wrong with a picture of which the graph makes nan or infinity."""

MAX_WORKERS = 8
"""Pictures decoded and scored side by side where nobody said by how many cores, each by one: the
largest take 0.7 GB, and deep TIFFs up to 2.5."""


@dataclass(eq=False)
class _Engine:
    """What runs the graph in one process."""

    process: int
    sessions: Sessions
    workers: ThreadPoolExecutor
    wide: Sessions | None = None
    """One whose runs take every core, for a crop that comes alone."""

    def __post_init__(self) -> None:
        _ENGINES.add(self)


_ENGINES: WeakSet[_Engine] = WeakSet()


def _keep_engines() -> None:
    """In a forked process: what the parent opened is never freed, not even at the end.

    A session that is freed waits for its threads, and those stayed behind in the parent.
    """
    for engine in _ENGINES:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_engines)


def is_one_picture(items: Any) -> bool:
    """Whether `predict` was given one picture, not several."""
    single = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Image.Image)
    return isinstance(items, single) or is_file(items) or callable(getattr(items, "detach", None))


class Detector:
    """A trained detector. It may be used before a fork and after, and pickled.

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
        device: str = "cpu",
        calibrated: bool = True,
    ) -> None:
        """Open a bundled model by name, or a bundle folder.

        Args:
            model: name or folder; see `distildire models list`.
            fpr: error budget of the verdicts, above 0, at most 0.5: no more than this share of real
                pictures is called fake, as far as the calibration pictures tell.
            kind: use the thresholds of this kind of pictures, where the calibration has them
                (`distildire calibrate --by`).
            threads: cores to use, and pictures in work side by side in a stream; by default all
            that the process may use, and `MAX_WORKERS` pictures at most.
            device: "cpu"; "cuda" (extra `gpu`); "openvino" (extra of that name), on the CPU;
                "auto" for CUDA where it works, else the CPU. See `device`.
            calibrated: False leaves the model's calibration out: for logits alone, as to fit
                another.

        Raises:
            BundleError: the model is missing or damaged, or the device can't run it; a model
                that is not calibrated yet gives logits, and raises when it is asked for a
                verdict.
            ValueError: `fpr` or `threads` out of range, or an unknown `kind` or `device`.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}: give 1 or more, or None for all cores")
        self.bundle = load_bundle(model, calibrated=calibrated)
        self.fpr, self.kind = fpr, kind
        self._arguments = {
            "model": model, "fpr": fpr, "kind": kind, "threads": threads, "device": device,
            "calibrated": calibrated,
        }  # fmt: skip
        self.thresholds_of: str | None = None
        """The kind whose thresholds are taken; None where they are those of all pictures."""
        if kind is not None:
            calibration = self._calibration()
            self.bundle = replace(self.bundle, calibration=calibration.for_kind(kind))
            self.thresholds_of = kind if calibration.kinds[kind].has_thresholds else None
        if self.bundle.calibration is not None:
            self._thresholds(fpr)
        self.cores = threads or usable_cores()
        self.workers = threads or min(MAX_WORKERS, self.cores)
        """Pictures in work side by side in a stream on a CPU."""
        self.device = checked_device(device)
        """What runs the network: "cpu", "cuda" or "openvino"."""
        self._own = self._open_first()

    def _open_first(self) -> _Engine:
        if self.device != "auto":
            return self._open()
        self.device = "cuda"
        try:
            return self._open()
        except BundleError as error:
            self.device = "openvino" if self.bundle.is_ir else "cpu"
            log.info("device auto: %s, because: %s", self.device, error)
            return self._open()

    def _open(self) -> _Engine:
        # Many pictures are scored one per core: no core waits for another in the middle of a
        # picture, and one picture at a time stays in the cache where a batch does not. A torch
        # bundle has threads in common, and weights too large to load twice.
        # A GPU has one session, and takes what many pictures have to give at a time.
        shared = self.bundle.torch is not None or self.device == "cuda"
        threads, most = (self.cores, 1) if shared else (1, self.workers)
        sessions = Sessions(self.bundle, threads, most, self.device)
        return _Engine(os.getpid(), sessions, ThreadPoolExecutor(self.cores))

    @property
    def _engine(self) -> _Engine:
        """The sessions and threads of this process: those of a parent don't live after a fork."""
        if self._own.process != os.getpid():
            self._own = self._open()
        return self._own

    def __getstate__(self) -> dict[str, Any]:
        """The arguments: a copy in another process opens the model anew."""
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self.__init__(**arguments)  # type: ignore[misc]

    @property
    def batch(self) -> int:
        """Pictures that it gains by being given at once: 1 on a CPU."""
        return max(1, GPU_CROPS // self.bundle.preprocessing.views) if self._gathers else 1

    @property
    def _gathers(self) -> bool:
        return self.device == "cuda" and self.bundle.torch is None

    @property
    def name(self) -> str:
        """Of the model."""
        return self.bundle.name

    @property
    def given(self) -> str:
        """The name or folder by which the model was asked for."""
        return str(self._arguments["model"])

    def predict(
        self,
        items: Source | Iterable[Source],
        fpr: float | None = None,
        *,
        progress: Done | None = None,
    ) -> list[Verdict]:
        """Verdicts in the order of `items`; a picture that can't be scored has `error` set."""
        several: Any = [items] if is_one_picture(items) else items
        if not hasattr(several, "__iter__"):
            raise TypeError(
                f"cannot judge a {type(items).__name__}: give paths, bytes, open files, PIL "
                "images or uint8 arrays, one or several"
            )
        lone = isinstance(several, list) and len(several) == 1
        verdicts: list[Verdict] = []
        for verdict in self._alone(several[0], fpr) if lone else self.stream(several, fpr):
            verdicts.append(verdict)
            if progress is not None:
                progress(len(verdicts))
        return verdicts

    def stream(
        self,
        items: Iterable[Given],
        fpr: float | None = None,
        *,
        load: Callable[[Given], Loaded] | None = None,
    ) -> Iterator[Verdict]:
        """Verdicts one by one, in order, in bounded memory; each core has its own picture.

        On a GPU the cores decode, and it takes many pictures at a time.

        Args:
            items: paths, bytes, pictures, arrays, or what is read when its turn comes.
            fpr: error budget, above 0, at most 0.5; the detector's by default.
            load: in the place of `self.load`, such as one that decodes in other processes.
        """
        load = load or self.load
        budget = self.fpr if fpr is None else fpr
        self._thresholds(budget)
        if self._gathers:
            yield from self._stream_batches(items, budget, load)
            return

        def judged(item: Given) -> list[Verdict]:
            return self.judge([load(item)], [budget], alone=False)

        for verdicts in over_cores(judged, items, self.workers, size=held_by):
            yield from verdicts

    def _stream_batches(
        self, items: Iterable[Given], fpr: float, load: Callable[[Given], Loaded]
    ) -> Iterator[Verdict]:
        # The next batch is decoded while this one is on the GPU.
        loaded = over_cores(load, items, self.cores, ahead=2 * self.batch, size=held_by)
        while batch := list(itertools.islice(loaded, self.batch)):
            yield from self.judge(batch, [fpr] * len(batch))

    def _alone(self, item: Source, fpr: float | None) -> list[Verdict]:
        budget = self.fpr if fpr is None else fpr
        self._thresholds(budget)
        return self.judge([self.load(item)], [budget])

    def logit(self, rgb: RGB, *, alone: bool = True) -> float:
        """Uncalibrated score of one decoded picture, uint8 [H, W, 3]: mean over its crops.

        `alone` as in `run_graph`.

        Raises:
            ImageError: it can't be cut, or its score is no finite number.
        """
        logit = float(self.score_crops(self.bundle.preprocessing(rgb), alone=alone).mean())
        if not math.isfinite(logit):
            raise ImageError(NO_NUMBER)
        return logit

    def score_crops(self, crops: NDArray[np.uint8], *, alone: bool = True) -> NDArray[np.float32]:
        """Crops uint8 [N, S, S, 3] -> logits [N]; `alone` as in `run_graph`."""
        return self.run_graph("logit", crops, alone=alone)

    @property
    def graph_outputs(self) -> frozenset[str]:
        """What the graph can give; `logit` is always there, `cam` and `eps0` mostly."""
        return frozenset(output.name for output in self._engine.sessions.get_outputs())

    def run_graph(
        self, output: str, crops: NDArray[np.uint8], *, alone: bool = True
    ) -> NDArray[np.float32]:
        """One output of the graph for crops uint8 [N, S, S, 3]; its first axis is N.

        `alone`: the crops are divided among the cores, and all cores work on a single one;
        else one core takes them all, for callers that are many. The numbers are the same.
        """

        def run(part: NDArray[np.uint8]) -> NDArray[np.float32]:
            return engine.sessions.run([output], {"rgb": part})[0]

        engine = self._engine
        size = engine.sessions.size
        if not alone or self.cores == 1 or self.bundle.torch:
            return run(crops)
        if len(crops) == 1 and self.device != "cuda":
            return self._of_all_cores(engine).run([output], {"rgb": crops})[0]
        if len(crops) <= size:
            return run(crops)
        parts = [crops[start : start + size] for start in range(0, len(crops), size)]
        return np.concatenate(list(engine.workers.map(run, parts)))

    def _of_all_cores(self, engine: _Engine) -> Sessions:
        """Opened when a crop first comes alone."""
        if engine.wide is None:
            engine.wide = Sessions(self.bundle, self.cores, 1, self.device)
        return engine.wide

    def warm_up(self) -> None:
        """Take the memory that scoring will need, for a service: it stays level afterwards."""
        engine = self._engine
        engine.sessions.warm_up()
        if self.cores > 1 and self.device == "cpu" and not self.bundle.torch:
            self._of_all_cores(engine).warm_up()

    def verdict_of(self, logit: float, fpr: float | None = None) -> tuple[float, Label]:
        """(calibrated probability of fake, verdict) of a logit."""
        calibration = self._calibration()
        budget = self.fpr if fpr is None else fpr
        return float(calibration.probability(logit)), calibration.verdict(logit, budget)

    def _calibration(self) -> Calibration:
        if self.bundle.calibration is None:
            raise BundleError(
                f"{self.given}: not calibrated yet: run distildire calibrate {self.given} MANIFEST"
            )
        return self.bundle.calibration

    def _thresholds(self, fpr: float) -> tuple[float, float]:
        return self._calibration().thresholds(fpr)

    def load(
        self, item: Given, *, name: str = "", max_pixels: int = MAX_PIXELS, keep: bool = False
    ) -> Loaded:
        """Read, hash, decode and cut one item; see `loading.load`."""
        return load(item, self.bundle.preprocessing, name=name, max_pixels=max_pixels, keep=keep)

    def not_scored(
        self, path: str, error: str, sha256: str | None = None, *, fpr: float | None = None
    ) -> Verdict:
        """The verdict of what this detector can't score."""
        budget = self.fpr if fpr is None else fpr
        return not_scored(
            path, self.name, error, sha256, model_sha256=self.bundle.sha256, fpr=budget
        )

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
            logit = math.nan if item.crops is None else next(logits)
            if not math.isfinite(logit):
                error = item.error or NO_NUMBER
                verdicts.append(self.not_scored(item.path, error, item.sha256, fpr=fpr))
                continue
            probability, verdict = self.verdict_of(logit, fpr)
            if item.note is not None:
                probability, verdict = NO_EVIDENCE, "unsure"
            verdicts.append(
                Verdict(
                    item.path, item.sha256, round(probability, 6), round(logit, 6), verdict,
                    self.name, *item.size, note=item.note, declares=item.declares,
                    model_sha256=self.bundle.sha256, fpr=fpr,
                )
            )  # fmt: skip
        return verdicts
