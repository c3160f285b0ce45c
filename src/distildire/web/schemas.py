"""The service's answers, for its OpenAPI description."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from pydantic import BaseModel, Field, create_model

from distildire.verdict import COLUMNS
from distildire.video.judge import VideoVerdict

_ABOUT = {
    "path": "the file's name as sent; empty for a raw body",
    "probability": "calibrated probability of generated, 0 to 1, at equal shares of both",
    "logit": "uncalibrated score",
    "error": "why the file could not be scored, one sentence",
    "duration": "of a video, in seconds",
    "scenes": "of a video: scenes looked at",
    "typical_logit": "of a video: median frame",
    "suspicious": "of a video: start and end of the moment that decided, seconds",
    "note": "one sentence: why there is nothing to judge (the verdict is unsure then), or how much "
    "of a video was seen",
    "declares": "one sentence: what the file says of its own origin; no part of the score",
    "model_sha256": "of the weights that scored",
    "fpr": "error budget of the verdict",
    "timeline": "of a video: its scored frames with their time in seconds",
}
_AS_JSON = {"suspicious": list[float] | None, "timeline": list[dict[str, Any]] | None}


def _columns() -> dict[str, Any]:
    """The fields of a verdict; those that not every row has are optional."""
    hints = get_type_hints(VideoVerdict)
    columns: dict[str, Any] = {
        column.name: (
            _AS_JSON.get(column.name, hints[column.name]),
            Field(
                default=... if column.name in COLUMNS else None,
                description=_ABOUT.get(column.name),
            ),
        )
        for column in fields(VideoVerdict)
    }
    about_kind = (
        "whose thresholds were taken, where the service runs with `--kind`; null: of all pictures"
    )
    return columns | {"kind": (str | None, Field(default=None, description=about_kind))}


if TYPE_CHECKING:

    class Result(BaseModel):
        """One file."""
else:
    Result = create_model(
        "Result",
        __doc__="One file: `distildire detect --format jsonl` gives the same fields.",
        __module__=__name__,
        **_columns(),
    )


class Detection(BaseModel):
    """The files of one request, in their order."""

    model: str
    fpr: float = Field(description="error budget of the verdicts")
    results: list[Result]


class Threshold(BaseModel):
    """Where the verdict changes at one error budget."""

    fpr: float
    real_below: float = Field(description="calibrated probability")
    fake_above: float = Field(description="calibrated probability")
    real_below_logit: float
    fake_above_logit: float
    remark: str | None = Field(description="that the calibration pictures are too few for it")


class Model(BaseModel):
    """A model that this service can use."""

    name: str
    sha256: str = Field(description="of the weights")
    version: str = Field(description="of distildire")
    fpr: float = Field(description="error budget where a request names none")
    calibrated_on: dict[str, Any]
    thresholds: list[Threshold]


class Limits(BaseModel):
    """What one request may bring."""

    max_body: int
    max_pixels: int
    max_files: int
    video: bool


class Models(BaseModel):
    """The models, the one in use first."""

    models: list[Model]
    limits: Limits


class Explanation(BaseModel):
    """A record (see its published schema), and the first-step noise as a picture."""

    record: dict[str, Any]
    noise: str | None = Field(description="data URI of a PNG; grey is zero")


class Health(BaseModel):
    """The service is up."""

    status: Literal["ok"]
    model: str
    version: str
    pending: int = Field(description="files waiting or at work")


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    results: list[Result] | None = None


_FILE = {"type": "string", "format": "binary"}


def _body(file: dict[str, Any]) -> dict[str, Any]:
    fields = {"type": "object", "required": ["file"], "properties": {"file": file}}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": fields},
            "application/octet-stream": {"schema": _FILE},
        },
    }


ONE_FILE = _body({**_FILE, "description": "a picture"})
"""The request body of endpoints that take one file."""

FILES = _body(
    {
        "type": "array",
        "minItems": 1,
        "items": _FILE,
        "description": "pictures or videos; the field may be repeated",
    }
)
"""The request body of endpoints that take many."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that can answer with these problems."""
    content = {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
    }
    return {
        status: {"description": _DESCRIPTIONS[status], "content": content} for status in statuses
    }


_DESCRIPTIONS = {
    400: "malformed body",
    401: "the bearer key is missing or wrong",
    408: "the body did not arrive in time",
    413: "over a limit",
    422: "no file of the request can be scored, or a parameter is out of range",
    429: "busy; `Retry-After` says in how many seconds to try again",
    503: "no answer in time",
}
