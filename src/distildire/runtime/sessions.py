"""Sessions of one graph, each used by one caller at a time.

A session keeps the memory that its runs needed. Runs side by side in one session lay their
memory out anew each time, and once in thousands of pictures worse than ever before: it grows
for hours. A session that does one run at a time repeats itself, and stays as large as its
largest run made it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.bundle import Bundle, BundleError
from distildire.io.text import words_of
from distildire.runtime.engines import Runner, open_runner

RUN_CROPS = 1
"""Crops in one run of the graph: activations in eight bits are scaled over a run, so that the
score of a crop would depend on those beside it, and on the number of cores that share them out."""

GPU_CROPS = 64
"""Crops in one run on a GPU at most: it is slow on few. Activations there are in float."""

DEVICE_MENDS = {
    "cpu": "see that memory is free for it",
    "cuda": "see nvidia-smi for what else takes the GPU's memory, or give the device cpu",
    "openvino": "see that memory is free for it, or give the device cpu",
}


class Sessions:
    """At most `most` sessions of a bundle's graph, opened when callers come that need one more.

    Callers beyond that many wait for each other. Looks like one session: `run`, `get_outputs`.
    """

    def __init__(self, bundle: Bundle, threads: int, most: int, device: str = "cpu") -> None:
        """Open the first one on `device`: cpu, cuda or openvino.

        Raises:
            BundleError: the graph can't be run.
        """
        self._bundle, self._threads, self._most = bundle, threads, most
        self._device = device
        self._places = threading.Semaphore(most)
        self.size = RUN_CROPS if device != "cuda" else GPU_CROPS
        with self._in_a_sentence():
            first = self._open()
        self._free = deque([first])
        self._outputs: list[Any] = list(first.get_outputs())

    def get_outputs(self) -> list[Any]:
        """What the graph can give; each has a `name`."""
        return self._outputs

    def run(
        self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]]:
        """The outputs `names` for `rgb` uint8 [N, S, S, 3], by the next free session.

        Raises:
            BundleError: the device fails; so it will with the next picture too.
        """
        with self._places, self._in_a_sentence():
            return self._run(names, feeds)

    def warm_up(self) -> None:
        """Open every session and let each give every output: what they take then is for good.

        Of a torch bundle nothing is run: it takes minutes, and torch gives memory back.

        Raises:
            BundleError: the device fails.
        """
        if self._bundle.torch is not None:
            return
        crop = self._bundle.preprocessing.crop
        feeds = {"rgb": np.zeros((self.size, crop, crop, 3), np.uint8)}
        for _ in range(self._most):
            self._places.acquire()
        try:
            with self._in_a_sentence():
                while len(self._free) < self._most:
                    self._free.append(self._open())
                for session in self._free:
                    for output in self._outputs:
                        session.run([output.name], feeds)
        finally:
            self._places.release(self._most)

    def _run(
        self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]]:
        # The latest used first: its memory is in the cache, and few callers open few sessions.
        try:
            session = self._free.pop()
        except IndexError:
            session = self._open()
        try:
            if self._bundle.torch is not None:
                whole: list[NDArray[np.float32]] = session.run(names, feeds)
                return whole
            rgb = feeds["rgb"]
            parts = []
            for start in range(0, len(rgb), self.size):
                part = rgb[start : start + self.size]
                values = session.run(names, {"rgb": self._filled(part)})
                parts.append([value[: len(part)] for value in values])
            return [np.concatenate(column) for column in zip(*parts, strict=True)]
        finally:
            self._free.append(session)

    def _filled(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """With blank crops behind, so that there are as many as the session was opened for."""
        if len(rgb) == self.size or self._device == "cuda":
            return rgb
        return np.pad(rgb, ((0, self.size - len(rgb)), (0, 0), (0, 0), (0, 0)))

    def _open(self) -> Runner:
        return open_runner(self._bundle, self._device, self._threads, self.size)

    @contextlib.contextmanager
    def _in_a_sentence(self) -> Iterator[None]:
        """What the device raises, as a BundleError: memory that is full, a GPU that is gone."""
        try:
            yield
        except Exception as error:
            # ONNX Runtime has types of its own, with no base in common.
            own = type(error).__module__.startswith("onnxruntime")
            if not own and not isinstance(error, RuntimeError):
                raise
            raise BundleError(
                f"{self._bundle.name}: device {self._device} failed ({words_of(error)}): "
                f"{DEVICE_MENDS[self._device]}"
            ) from error
