"""The FastAPI application: one detector behind an HTTP interface."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from distildire import __version__
from distildire.detector import MAX_WORKERS, Detector
from distildire.isolation.pool import Workers
from distildire.web import problems
from distildire.web.routes import build_router
from distildire.web.schemas import ProblemDetails
from distildire.web.scoring import ScoringQueue
from distildire.web.service import Service
from distildire.web.settings import Settings
from distildire.web.slow_lane import SlowLane

STATIC = Path(__file__).parent / "static"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds of the histogram of answers."""

# A second series for every counter, which nothing here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

SECURITY_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        b"media-src blob:; font-src 'self'; connect-src 'self'; base-uri 'none'; "
        b"form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def create_app(
    detector: Detector, settings: Settings | None = None, *, decoder: str | None = None
) -> FastAPI:
    """The service over one detector; it serves its page at `/`.

    Uploads stay in memory, and nothing that a request names is fetched. `decoder`: for tests, see
    `isolation.pool.Workers`.

    Raises:
        BundleError: the detector is not calibrated.
    """
    settings = settings or Settings()
    detector.verdict_of(0.0)
    detector.warm_up()
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    workers = _start_workers(detector, metrics, decoder) if settings.isolate else None
    queue = ScoringQueue(
        detector,
        queue_size=settings.queue_size,
        max_pixels=settings.max_pixels,
        workers=workers,
    )
    lane = SlowLane(settings.max_explanations)
    service = Service(detector, settings, queue, lane, metrics, workers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        lane.close()
        queue.close()
        if workers is not None:
            workers.close()

    app = FastAPI(
        title="distildire",
        version=__version__,
        summary="Tell camera images from generated ones, with a calibrated score.",
        # FastAPI's own documentation pages load scripts from a CDN.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    problems.install(app, SECURITY_HEADERS)
    app.include_router(build_router(service))
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    app.add_middleware(_Observed, metrics=metrics)
    _describe_problems(app)
    return app


def _start_workers(detector: Detector, metrics: CollectorRegistry, decoder: str | None) -> Workers:
    crashes = Counter(
        "distildire_decoder_crashes", "Decoding processes that died.", registry=metrics
    )
    # One more for the slow lane.
    count = min(MAX_WORKERS, detector.cores) + 1
    return Workers(detector.bundle.preprocessing, count, decoder=decoder, crashed=crashes.inc)


class _Observed:
    """ASGI middleware: counts and times requests, and adds the security headers."""

    def __init__(self, app: Any, metrics: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "distildire_requests", "Answers by path and status.", ("path", "status"),
            registry=metrics,
        )  # fmt: skip
        self._seconds = Histogram(
            "distildire_request_seconds", "Time to answer /v1 requests.", buckets=SECONDS,
            registry=metrics,
        )  # fmt: skip

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves the body out
        started = time.perf_counter()
        status = 500

        async def observed(message: _Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            # Only paths that exist become labels, or callers could grow the metrics at will.
            route = scope.get("route")
            path = getattr(route, "path", None) or "other"
            self._requests.labels(path, str(status)).inc()
            if path.startswith("/v1"):
                self._seconds.observe(time.perf_counter() - started)


def _describe_problems(app: FastAPI) -> None:
    """Put the problem document into the OpenAPI schema, where `responses` refers to it."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            tree = plain()
            schemas = tree.setdefault("components", {}).setdefault("schemas", {})
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            template = "#/components/schemas/{model}"
            schemas["ProblemDetails"] = ProblemDetails.model_json_schema(ref_template=template)
            schemas["ProblemDetails"].pop("$defs", None)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
