"""Scoring across requests: one bounded queue, decoding in threads, a picture on each core.

On a CPU nothing gathers a batch: it would cost more per picture than one by one, and its first
picture would wait for its last. A GPU takes whatever is ready at once, and waits for no more.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from distildire.detector import MAX_WORKERS, Detector
from distildire.isolation.pool import Workers
from distildire.loading import Loaded
from distildire.verdict import Verdict
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


class ScoringQueue:
    """Takes files from many requests at once and scores them side by side.

    A place in the queue is held until its work is over, even where the caller has left, so
    that the limit bounds the work and not only the callers.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        queue_size: int = 256,
        max_pixels: int = 50_000_000,
        workers: Workers | None = None,
    ) -> None:
        self._detector = detector
        self._queue_size = queue_size
        self._max_pixels = max_pixels
        self._workers = workers
        self._pending = 0
        self._lock = threading.Lock()
        self._seconds_each = 0.05
        self._ready: queue.SimpleQueue[tuple[_Job, Loaded] | None] = queue.SimpleQueue()
        threads = min(MAX_WORKERS, detector.cores)
        self._batch = detector.batch
        self._decoders = ThreadPoolExecutor(threads, "decode")
        self._scorers = [
            threading.Thread(target=self._score_forever, name=f"score-{i}", daemon=True)
            for i in range(threads if self._batch == 1 else 1)
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
            loaded = self._load(upload)
        except Exception as error:
            self._release(1)
            job.future.set_exception(error)
            return
        if loaded.error is None:
            self._ready.put((job, loaded))
            return
        self._release(1)
        refused = self._detector.not_scored(loaded.path, loaded.error, loaded.sha256, fpr=job.fpr)
        job.future.set_result(refused)

    def _load(self, upload: Upload) -> Loaded:
        if self._workers is not None:
            return self._workers.load(upload.data, upload.name, self._max_pixels)
        return self._detector.load(upload.data, name=upload.name, max_pixels=self._max_pixels)

    def _score_forever(self) -> None:
        while (ready := self._ready.get()) is not None:
            batch = [ready]
            while len(batch) < self._batch and not self._ready.empty():
                more = self._ready.get()
                if more is None:
                    self._ready.put(None)  # the end: once these are scored
                    break
                batch.append(more)
            self._score(batch)

    def _score(self, batch: list[tuple[_Job, Loaded]]) -> None:
        started = time.perf_counter()
        jobs, loaded = [job for job, _ in batch], [item for _, item in batch]
        try:
            alone = self._pending == len(batch)
            verdicts = self._detector.judge(loaded, [job.fpr for job in jobs], alone=alone)
        except Exception as error:
            self._release(len(jobs))
            for job in jobs:
                job.future.set_exception(error)
            return
        each = (time.perf_counter() - started) / len(batch) / len(self._scorers)
        self._seconds_each = 0.9 * self._seconds_each + 0.1 * each
        self._release(len(jobs))
        for job, verdict in zip(jobs, verdicts, strict=True):
            job.future.set_result(verdict)

    def _release(self, places: int) -> None:
        with self._lock:
            self._pending -= places
