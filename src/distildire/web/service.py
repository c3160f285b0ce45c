"""What the endpoints do, apart from HTTP's own forms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Info

from distildire import __version__
from distildire.detector import Detector
from distildire.explain.explanation import noise_of
from distildire.explain.record import Record, make_record
from distildire.io.pictures import ImageError, decode_bytes
from distildire.isolation.pool import Workers
from distildire.loading import what_is_wrong
from distildire.verdict import Verdict
from distildire.web.problems import Problem
from distildire.web.scoring import Busy, ScoringQueue
from distildire.web.settings import Settings
from distildire.web.slow_lane import SlowLane
from distildire.web.uploads import Upload, announced_length, read_uploads
from distildire.web.videos import can_read_videos, holds_video, judge_upload

T = TypeVar("T")

SLIDER_BUDGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Error budgets whose thresholds `/v1/models` spells out, for the page's slider."""


class Service:
    """One detector with its queue, its limits and its counters."""

    def __init__(
        self,
        detector: Detector,
        settings: Settings,
        queue: ScoringQueue,
        lane: SlowLane,
        metrics: CollectorRegistry,
        workers: Workers | None = None,
    ) -> None:
        self.detector = detector
        self.settings = settings
        self.metrics = metrics
        self._queue = queue
        self._lane = lane
        self._workers = workers
        self._requests = 0
        self._in_flight = 0
        self._files = Counter(
            "distildire_files", "Files by verdict or error.", ("verdict",), registry=metrics
        )
        Gauge("distildire_queue_files", "Files waiting or at work.", registry=metrics).set_function(
            lambda: self.pending
        )
        Gauge("distildire_slow_lane", "Explanations and videos.", registry=metrics).set_function(
            lambda: lane.pending
        )
        about = {"version": __version__, "model": detector.name, "sha256": detector.bundle.sha256}
        Info("distildire", "Version and model.", registry=metrics).info(about)

    @property
    def pending(self) -> int:
        """Files waiting or at work in the queue."""
        return self._queue.pending

    async def detect(self, request: Request, fpr: float) -> dict[str, Any]:
        """Score every file of a request.

        Raises:
            Problem: a limit, a malformed body, a full queue, or no file that can be scored.
        """
        async with self._admitted(request):
            uploads = await read_uploads(request, self.settings)
            results = await self._answer(request, self._judge(uploads, fpr))
        for result in results:
            self._files.labels(result["verdict"] or "error").inc()
        if all(result["error"] is not None for result in results):
            detail = results[0]["error"] if len(results) == 1 else "no file could be scored"
            raise Problem(422, detail, results=results)
        return {"model": self.detector.name, "fpr": fpr, "results": results}

    async def record(self, request: Request, fpr: float) -> Record:
        """The record of the one picture of a request."""
        return (await self._examine(request, fpr, noise=False))[0]

    async def explain(self, request: Request, fpr: float) -> dict[str, Any]:
        """The record's tree and the noise picture of the one picture of a request."""
        record, noise = await self._examine(request, fpr, noise=True)
        return {"record": record.tree, "noise": noise}

    async def _examine(
        self, request: Request, fpr: float, *, noise: bool
    ) -> tuple[Record, str | None]:
        async with self._admitted(request):
            uploads = await read_uploads(request, self.settings)
            if len(uploads) != 1:
                raise Problem(422, f"{len(uploads)} files: send one")
            upload = uploads[0]

            def work() -> tuple[Record, str | None]:
                most, data = self.settings.max_pixels, upload.data
                if self._workers is None:
                    rgb, facts = decode_bytes(data, max_pixels=most), None
                else:
                    rgb, facts = self._workers.pixels(data, most), self._workers.facts(data)
                record = make_record(
                    self.detector, data, name=upload.name, fpr=fpr, rgb=rgb, facts=facts
                )
                return record, noise_of(self.detector, rgb) if noise else None

            async def examined() -> tuple[Record, str | None]:
                with self._lane.place() as place:
                    return await place.run(work)

            try:
                return await self._answer(request, examined())
            except (ImageError, MemoryError) as error:
                raise Problem(422, what_is_wrong(error)) from None

    async def _judge(self, uploads: Sequence[Upload], fpr: float) -> list[dict[str, Any]]:
        videos = {i for i, upload in enumerate(uploads) if holds_video(upload.data)}
        pictures = [upload for i, upload in enumerate(uploads) if i not in videos]
        results = []
        # Both lines are joined before any work begins, or neither.
        with self._lane.place() if videos else nullcontext(None) as place:
            futures: list[Future[Verdict]] = self._queue.submit(pictures, fpr) if pictures else []
            waiting = iter([asyncio.wrap_future(future) for future in futures])
            try:
                for i, upload in enumerate(uploads):
                    if place is not None and i in videos:
                        work = partial(judge_upload, self.detector, upload, fpr, self._workers)
                        results.append(await place.run(work))
                    else:
                        results.append((await next(waiting)).to_dict())
            finally:
                for future in futures:
                    future.cancel()
        thresholds = {} if self.detector.kind is None else {"kind": self.detector.thresholds_of}
        return [result | thresholds for result in results]

    @asynccontextmanager
    async def _admitted(self, request: Request) -> AsyncIterator[None]:
        """Bound the requests, and the memory that their bodies take."""
        most = self.settings.max_body
        announced = announced_length(request)
        size = most if announced is None else min(announced, most)
        if (
            self._requests >= self.settings.max_requests
            or self._in_flight + size > self.settings.max_in_flight
        ):
            raise _busy(1)
        self._requests += 1
        self._in_flight += size
        try:
            yield
        finally:
            self._requests -= 1
            self._in_flight -= size

    async def _answer(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, which is dropped where it takes too long or its caller leaves."""
        limit = self.settings.answer_seconds
        answer, left = asyncio.create_task(work), asyncio.create_task(_left(request))
        try:
            await asyncio.wait((answer, left), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if left.done():
                raise Problem(400, "the caller left before the answer")
            raise Problem(503, f"no answer within {limit:g} seconds", headers={"Retry-After": "10"})
        except Busy as busy:
            raise _busy(busy.retry_after) from None
        finally:
            answer.cancel()
            left.cancel()

    def describe(self) -> dict[str, Any]:
        """The answer of `/v1/models`."""
        bundle = self.detector.bundle
        calibration = bundle.calibration
        assert calibration is not None  # Detector refuses a model without one
        thresholds = []
        for budget in sorted({*SLIDER_BUDGETS, self.detector.fpr}):
            low, high = calibration.thresholds(budget)
            thresholds.append(
                {
                    "fpr": budget,
                    "real_below": float(calibration.probability(low)),
                    "fake_above": float(calibration.probability(high)),
                    "real_below_logit": low,
                    "fake_above_logit": high,
                    "remark": calibration.remark(budget),
                }
            )
        model = {
            "name": bundle.name,
            "sha256": bundle.sha256,
            "version": __version__,
            "fpr": self.detector.fpr,
            "calibrated_on": {
                "n_real": calibration.n_real,
                "n_fake": calibration.n_fake,
                "data": calibration.data,
            },
            "thresholds": thresholds,
        }
        limits = {
            "max_body": self.settings.max_body,
            "max_pixels": self.settings.max_pixels,
            "max_files": self.settings.max_files,
            "video": can_read_videos(),
        }
        return {"models": [model], "limits": limits}


async def _left(request: Request) -> None:
    """Wait until the caller of a request, whose body is read, has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _busy(seconds: int) -> Problem:
    return Problem(
        429,
        f"the service is busy: try again in {seconds} s",
        headers={"Retry-After": str(seconds)},
    )
