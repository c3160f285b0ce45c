from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

import crashing_decoder as crashing
from distildire import Detector
from distildire.web.app import create_app
from distildire.web.settings import Settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX")

DECODER = "crashing_decoder:decode"


@pytest.fixture(scope="module")
def isolated(detector: Detector) -> Iterator[TestClient]:
    app = create_app(detector, Settings(isolate=True), decoder=DECODER)
    with TestClient(app) as client:
        yield client


def test_the_service_goes_on(isolated: TestClient, real_png: bytes) -> None:
    def ask(i: int) -> int:
        data = crashing.ABORT if i % 5 == 0 else real_png
        response = isolated.post("/v1/detect", files={"file": (f"{i}.png", data)})
        if i % 5 == 0:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["detail"] == "this file makes its decoder crash"
        else:
            assert response.json()["results"][0]["verdict"] == "real"
        return response.status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(30)))
    assert statuses == [422 if i % 5 == 0 else 200 for i in range(30)]
    assert "distildire_decoder_crashes_total 6" in isolated.get("/metrics").text
    files = [("file", ("a.png", real_png)), ("file", ("b.png", crashing.ABORT))]
    good, bad = isolated.post("/v1/detect", files=files).json()["results"]
    assert (good["error"], bad["error"]) == (None, "this file makes its decoder crash")


def test_explanations(isolated: TestClient, real_png: bytes) -> None:
    response = isolated.post("/v1/explain", content=crashing.ABORT)
    assert response.status_code == 422
    assert response.json()["detail"] == "this file makes its decoder crash"
    assert isolated.post("/v1/explain", content=real_png).json()["record"]["result"]


def test_the_service_reads_no_metadata(
    isolated: TestClient, client: TestClient, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("read in the service")

    record = client.post("/v1/record", content=real_png)
    for name in ("storage_of", "read_origin", "c2pa_summary"):
        monkeypatch.setattr(f"distildire.explain.facts.{name}", refuse)
    assert isolated.post("/v1/record", content=real_png).json() == record.json()
    assert isolated.post("/v1/explain", content=real_png).json()["record"] == record.json()
