"""Sessions of one graph, each used by one caller at a time.

A session keeps the memory that its runs needed. Runs side by side in one session lay their
memory out anew each time, and once in thousands of pictures worse than ever before: it grows
for hours. A session that does one run at a time repeats itself, and stays as large as its
largest run made it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distildire.bundle import Bundle, BundleError


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
        first = open_session(bundle, threads)
        self._free = deque([first])
        self._outputs: list[Any] = first.get_outputs()

    def get_outputs(self) -> list[Any]:
        """What the graph can give; each has a `name`."""
        return self._outputs

    def run(
        self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]], options: Any = None
    ) -> list[NDArray[np.float32]]:
        """The outputs `names`, by a free session or the next that is."""
        with self._places:
            return self._run(names, feeds, options)

    def run_if_free(
        self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]]
    ) -> list[NDArray[np.float32]] | None:
        """As `run`, or None at once where all sessions are at work."""
        if not self._places.acquire(blocking=False):
            return None
        try:
            return self._run(names, feeds, None)
        finally:
            self._places.release()

    def open_all(self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]]) -> None:
        """Open every session and run each of `names` by itself on it.

        What they take then is what they will take, where no run is larger than this one.
        """
        for _ in range(self._most):
            self._places.acquire()
        try:
            while len(self._free) < self._most:
                self._free.append(open_session(self._bundle, self._threads))
            for session in self._free:
                for name in names:
                    session.run([name], feeds)
        finally:
            self._places.release(self._most)

    def _run(
        self, names: Sequence[str], feeds: dict[str, NDArray[np.uint8]], options: Any
    ) -> list[NDArray[np.float32]]:
        # The latest used first: its memory is in the cache, and few callers open few sessions.
        try:
            session = self._free.pop()
        except IndexError:
            session = open_session(self._bundle, self._threads)
        try:
            values: list[NDArray[np.float32]] = session.run(names, feeds, options)
        finally:
            self._free.append(session)
        return values


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_session(bundle: Bundle, threads: int | None = None) -> Any:
    """A session on the CPU; `threads` of the network, all cores by default.

    ONNX Runtime's, or for a torch bundle one of the same `run` and `get_outputs`.
    """
    if bundle.torch is not None:
        from distildire.distill.torch_bundle import TorchSession

        return TorchSession(bundle, threads)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or usable_cores()
    # Idle threads that spin take the core from decoding and from whoever else needs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A pattern is kept for every number of crops ever seen, each a block of memory.
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(
            str(bundle.graph), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises its own, undocumented types
        raise BundleError(f"{bundle.folder}: model.onnx can't be run: {error}") from error
