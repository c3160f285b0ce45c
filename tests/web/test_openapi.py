"""The service keeps to its own OpenAPI description (schemathesis)."""

from __future__ import annotations

import pytest
from fastapi import FastAPI

from distildire import Detector
from distildire.web.app import create_app

schemathesis = pytest.importorskip("schemathesis")
if pytest.version_tuple >= (9, 2):
    pytest.skip("schemathesis 4 reads what pytest 9.2 has dropped", allow_module_level=True)

from hypothesis import HealthCheck, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402


@pytest.fixture(scope="module")
def app(detector: Detector) -> FastAPI:
    return create_app(detector)


@pytest.fixture
def described(app: FastAPI, fake_png: bytes, real_png: bytes) -> object:
    # Random bytes are hardly ever a picture: positive cases are given real ones.
    schemathesis.openapi.format("binary", st.sampled_from([fake_png, real_png]))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_keeps_to_its_description(case: schemathesis.Case) -> None:
    case.call_and_validate()
