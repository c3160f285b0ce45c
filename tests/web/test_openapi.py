"""The service keeps to its own OpenAPI description (schemathesis)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from live import running

from distildire import Detector

schemathesis = pytest.importorskip("schemathesis")

OPERATIONS = [
    ("POST", "/v1/detect"),
    ("POST", "/v1/explain"),
    ("POST", "/v1/record"),
    ("GET", "/v1/models"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def schema(detector: Detector, fake_png: bytes, real_png: bytes) -> Iterator[Any]:
    # Random bytes are hardly ever a picture: positive cases are given real ones.
    schemathesis.openapi.format("binary", st.sampled_from([fake_png, real_png]))
    with running(detector) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_every_operation_is_tried(schema: Any) -> None:
    described = {(r.ok().method.upper(), r.ok().path) for r in schema.get_all_operations()}
    assert described == set(OPERATIONS)


@pytest.mark.parametrize(
    ("mode", "method", "path"),
    [("positive", *operation) for operation in OPERATIONS]
    # A GET without parameters leaves nothing to get wrong.
    + [("negative", *operation) for operation in OPERATIONS if operation[0] == "POST"],
)
def test_keeps_to_its_description(schema: Any, mode: str, method: str, path: str) -> None:
    operation = schema[path][method]
    kind = schemathesis.GenerationMode(mode)
    cases = operation.as_strategy(generation_mode=kind)

    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def each(case: Any) -> None:
        case.call_and_validate()

    each()
