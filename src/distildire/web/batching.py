"""Scoring across requests: one bounded queue, decoding in threads, batches as they come.

No timer gathers a batch: while one is scored the next ones arrive, so that a lone request
waits for nobody and a crowd is scored together, a batch on each core.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from distildire.detector import MAX_WORKERS, Detector, Loaded, Verdict, not_scored
from distildire.web.uploads import Upload


class Busy(Exception):  # noqa: N818  (a state, not a fault)
    """The queue is full."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass
class _Job:
    upload: Upload
    fpr: float
    future: Future[Verdict] = field(default_factory=Future)
    loaded: Loaded | None = None


class Batcher:
    """Takes files from many requests at once and scores them together.

    A place in the queue is held until its work is over, even where the caller has left, so
    that the limit bounds the work and not only the callers.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        queue_size: int = 256,
        max_batch: int = 2,
        max_pixels: int = 50_000_000,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._detector = detector
        self._queue_size = queue_size
        self._max_batch = max_batch
        self._max_pixels = max_pixels
        self._on_batch = on_batch
        self._pending = 0
        self._lock = threading.Lock()
        self._seconds_each = 0.05
        self._ready: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threads = min(MAX_WORKERS, detector.cores)
        self._decoders = ThreadPoolExecutor(threads, "decode")
        self._scorers = [
            threading.Thread(target=self._score_forever, name=f"score-{i}", daemon=True)
            for i in range(threads)
        ]
        for scorer in self._scorers:
            scorer.start()

    @property
    def pending(self) -> int:
        """Files waiting or at work."""
        return self._pending

    def submit(self, uploads: Sequence[Upload], fpr: float) -> list[Future[Verdict]]:
        """Queue all of `uploads`, or none.

        Raises:
            Busy: they don't fit into the queue.
        """
        with self._lock:
            if self._pending + len(uploads) > self._queue_size:
                wait = math.ceil(self._pending * self._seconds_each)
                raise Busy(min(max(wait, 1), 60))
            self._pending += len(uploads)
        jobs = [_Job(upload, fpr) for upload in uploads]
        for job in jobs:
            self._decoders.submit(self._decode, job)
        return [job.future for job in jobs]

    def warm_up(self) -> None:
        """Score blanks as in the worst moment: full batches on every core, and a lone run.

        ONNX Runtime keeps the memory that its largest runs took side by side. Met by chance
        after an hour such a moment would look like a leak; met here it is the level from
        which the service starts.
        """
        cut = self._detector.bundle.preprocessing
        blank = np.zeros((self._max_batch * cut.views, cut.crop, cut.crop, 3), np.uint8)
        together = threading.Barrier(len(self._scorers) + 1)

        def run(alone: bool) -> None:
            for _ in range(3):
                together.wait()
                self._detector.score_crops(blank, alone=alone)

        with ThreadPoolExecutor(together.parties) as pool:
            list(pool.map(run, [True] + [False] * len(self._scorers)))

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        self._decoders.shutdown()
        for _ in self._scorers:
            self._ready.put(None)
        for scorer in self._scorers:
            scorer.join()

    def _decode(self, job: _Job) -> None:
        if not job.future.set_running_or_notify_cancel():
            self._release(1)
            return
        upload = job.upload
        try:
            loaded = self._detector.load(upload.data, name=upload.name, max_pixels=self._max_pixels)
        except Exception as error:
            self._release(1)
            job.future.set_exception(error)
            return
        if loaded.error is None:
            job.loaded = loaded
            self._ready.put(job)
            return
        self._release(1)
        job.future.set_result(
            not_scored(loaded.path, self._detector.name, loaded.error, loaded.sha256)
        )

    def _score_forever(self) -> None:
        while (first := self._ready.get()) is not None:
            batch = [first]
            while len(batch) < self._max_batch:
                try:
                    job = self._ready.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    self._ready.put(None)
                    break
                batch.append(job)
            self._score(batch)

    def _score(self, batch: Sequence[_Job]) -> None:
        started = time.perf_counter()
        try:
            loaded = [job.loaded for job in batch if job.loaded is not None]
            alone = len(batch) == self._pending
            verdicts = self._detector.judge(loaded, [job.fpr for job in batch], alone=alone)
        except Exception as error:
            self._release(len(batch))
            for job in batch:
                job.future.set_exception(error)
            return
        each = (time.perf_counter() - started) / len(batch) / len(self._scorers)
        self._seconds_each = 0.9 * self._seconds_each + 0.1 * each
        self._on_batch(len(batch))
        self._release(len(batch))
        for job, verdict in zip(batch, verdicts, strict=True):
            job.future.set_result(verdict)

    def _release(self, places: int) -> None:
        with self._lock:
            self._pending -= places
