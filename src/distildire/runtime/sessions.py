"""Sessions of one graph, each used by one caller at a time.

A session keeps the memory that its runs needed. Runs side by side in one session lay their
memory out anew each time, and once in thousands of pictures worse than ever before: it grows
for hours. A session that does one run at a time repeats itself, and stays as large as its
largest run made it.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.bundle import Bundle, BundleError

BATCH_AXIS = "N"
"""Name of the first axis in exported graphs."""

RUN_CROPS = 5
"""Crops in one run of the graph at most: with more the work falls out of a core's cache, and
a session keeps the memory of its largest run."""


class Sessions:
    """At most `most` sessions of a bundle's graph, opened when callers come that need one more.

    Callers beyond that many wait for each other. Looks like one session: `run`, `get_outputs`.
    """

    def __init__(self, bundle: Bundle, threads: int, most: int) -> None:
        """Open the first one.

        Raises:
            BundleError: the graph can't be run.
        """
        self._bundle, self._threads, self._most = bundle, threads, most
        self._places = threading.Semaphore(most)
        self.size = run_size(bundle, most)
        first = self._open()
        self._free = deque([first])
        self._outputs: list[Any] = first.get_outputs()

    def get_outputs(self) -> list[Any]:
        """What the graph can give; each has a `name`."""
        return self._outputs

    def run(
        self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]]:
        """The outputs `names` for `rgb` uint8 [N, S, S, 3], by the next free session."""
        with self._places:
            return self._run(names, feeds)

    def warm_up(self) -> None:
        """Open every session and let each give every output: what they take then is for good.

        Of a torch bundle nothing is run: it takes minutes, and torch gives memory back.
        """
        if self._bundle.torch is not None:
            return
        crop = self._bundle.preprocessing.crop
        feeds = {"rgb": np.zeros((self.size, crop, crop, 3), np.uint8)}
        for _ in range(self._most):
            self._places.acquire()
        try:
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
        if len(rgb) == self.size:
            return rgb
        return np.pad(rgb, ((0, self.size - len(rgb)), (0, 0), (0, 0), (0, 0)))

    def _open(self) -> Any:
        return open_session(self._bundle, self._threads, self.size)


def run_size(bundle: Bundle, sessions: int) -> int:
    """Crops of every run of the graph: a picture's share for each of so many sessions."""
    return min(RUN_CROPS, math.ceil(bundle.preprocessing.views / sessions))


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: by its affinity and by its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _quota(cgroup: Path) -> float | None:
    """Cores by `cpu.max` (cgroup v2) or `cpu.cfs_quota_us` (v1); None without a limit."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
            )
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit
        return None


def open_session(bundle: Bundle, threads: int | None = None, crops: int | None = None) -> Any:
    """A session on the CPU; `threads` of the network, all cores by default.

    With `crops` every run must be of so many: all shapes are known then, and what computes
    them is left out of the graph (a sixth of its time).

    ONNX Runtime's, or for a torch bundle one of the same `run` and `get_outputs`.
    """
    if bundle.torch is not None:
        from distildire.distill.torch_bundle import TorchSession

        return TorchSession(bundle, threads)
    try:
        return onnx_session(str(bundle.graph), threads, crops)
    except Exception as error:  # onnxruntime raises its own, undocumented types
        raise BundleError(f"{bundle.folder}: model.onnx can't be run: {error}") from error


def onnx_session(graph: str | bytes, threads: int | None = None, crops: int | None = None) -> Any:
    """A session of the graph in a file, or of its bytes; `threads` and `crops` as above."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or usable_cores()
    # Idle threads that spin take the core from decoding and from whoever else needs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if crops is not None:
        options.add_free_dimension_override_by_name(BATCH_AXIS, crops)
    # A pattern is kept for every number of crops ever seen, each a block of memory.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
