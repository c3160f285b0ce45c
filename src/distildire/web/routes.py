"""The endpoints."""

from __future__ import annotations

import hmac
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import generate_latest

from distildire import __version__
from distildire.web.problems import Problem
from distildire.web.schemas import FILES, ONE_FILE, Detection, Explanation, Health, Models, problems
from distildire.web.service import Service

_bearer = HTTPBearer(auto_error=False, description="only where the operator has set a key")

Fpr = Annotated[
    float | None,
    Query(gt=0, le=0.5, description="error budget of the verdicts; the model's by default"),
]

_UPLOAD_PROBLEMS = problems(400, 401, 408, 413, 422, 429, 503)


def guards(key: str | None) -> list[Any]:
    """Asks for the operator's key; an endpoint is described as guarded only where one is set."""
    if key is None:
        return []

    def authorize(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        given = credentials.credentials if credentials else ""
        # Header bytes reach us as Latin-1, which browsers send; others send UTF-8.
        sent = given.encode("latin-1", "replace")
        if not any(hmac.compare_digest(sent, key.encode(code)) for code in ("latin-1", "utf-8")):
            raise Problem(
                401,
                "a bearer key is needed" if not given else "the bearer key is wrong",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return [Depends(authorize)]


def build_router(service: Service) -> APIRouter:
    """All endpoints over one service."""
    router = APIRouter()
    guarded = guards(service.settings.key)
    budget = service.detector.fpr

    @router.post(
        "/v1/detect",
        dependencies=guarded,
        response_model=Detection,
        responses=_UPLOAD_PROBLEMS,
        openapi_extra={"requestBody": FILES},
    )
    async def detect(request: Request, fpr: Fpr = None) -> Response:
        """Score one or many pictures or videos.

        Files that can't be scored have `error` set; where none could be, the answer is 422.
        """
        return JSONResponse(await service.detect(request, fpr or budget))

    @router.post(
        "/v1/explain",
        dependencies=guarded,
        response_model=Explanation,
        responses=_UPLOAD_PROBLEMS,
        openapi_extra={"requestBody": ONE_FILE},
    )
    async def explain(request: Request, fpr: Fpr = None) -> Response:
        """One picture with heat map, stability, provenance and noise."""
        return JSONResponse(await service.explain(request, fpr or budget))

    @router.post(
        "/v1/record",
        dependencies=guarded,
        response_model=dict[str, Any],
        responses={
            200: {"content": {"text/html": {"schema": {"type": "string"}}}},
            **_UPLOAD_PROBLEMS,
        },
        openapi_extra={"requestBody": ONE_FILE},
    )
    async def record(
        request: Request,
        fpr: Fpr = None,
        format: Literal["json", "html"] = "json",
    ) -> Response:
        """The forensic record of one picture, to be kept: the same picture, the same bytes."""
        made = await service.record(request, fpr or budget)
        name = f"record-{made.tree['input']['sha256'][:12]}.{format}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        if format == "html":
            return Response(made.to_html(), media_type="text/html", headers=headers)
        return Response(made.to_json(), media_type="application/json", headers=headers)

    @router.get("/v1/models", dependencies=guarded, response_model=Models, responses=problems(401))
    async def models() -> Response:
        """The model in use, its thresholds, and the limits of a request."""
        return JSONResponse(service.describe())

    @router.get("/healthz", response_model=Health)
    async def healthz() -> Response:
        """Whether the service is up."""
        return JSONResponse(
            {
                "status": "ok",
                "model": service.detector.name,
                "version": __version__,
                "pending": service.pending,
            }
        )

    @router.get(
        "/metrics",
        dependencies=guarded,
        response_class=PlainTextResponse,
        responses=problems(401),
    )
    async def metrics() -> Response:
        """Counters in the Prometheus text format."""
        return Response(
            generate_latest(service.metrics), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    return router
