from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import crashing_decoder as crashing
import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from distildire import Detector
from distildire.io.pictures import ImageError, decode_bytes
from distildire.web import isolation
from distildire.web.app import create_app
from distildire.web.isolation import Workers
from distildire.web.settings import Settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX")

DECODER = "crashing_decoder:decode"


@pytest.fixture(scope="module")
def workers(detector: Detector) -> Iterator[Workers]:
    pool = Workers(detector.bundle.preprocessing, 2, decoder=DECODER)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def isolated(detector: Detector) -> Iterator[TestClient]:
    app = create_app(detector, Settings(isolate=True), decoder=DECODER)
    with TestClient(app) as client:
        yield client


def test_says_what_the_detector_says(
    workers: Workers, detector: Detector, real_png: bytes, flat: NDArray[np.uint8]
) -> None:
    for data in (real_png, b"no picture", real_png[:900]):
        here = detector.load(data, name="a")
        there = workers.load(data, "a", 10**8)
        assert np.array_equal(here.crops, there.crops)  # type: ignore[arg-type]
        assert {**vars(here), "crops": 0} == {**vars(there), "crops": 0}
    assert np.array_equal(workers.pixels(real_png, 10**8), decode_bytes(real_png))
    with pytest.raises(ImageError, match="not a picture"):
        workers.pixels(b"no picture", 10**8)


@pytest.mark.parametrize("word", [crashing.ABORT, crashing.SEGFAULT])
def test_a_crash_costs_one_file(workers: Workers, real_png: bytes, word: bytes) -> None:
    for _ in range(3):
        assert workers.load(word, "a", 10**8).error == "this file makes its decoder crash"
    assert workers.load(real_png, "a", 10**8).error is None


def test_limits(
    workers: Workers, real_png: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "memory" in str(workers.load(crashing.EAT, "a", 10**8).error)
    target = tmp_path / "written"
    answer = workers.load(crashing.WRITE + str(target).encode(), "a", 10**8)
    # The kernel's signal ends the process, or the write fails.
    assert answer.error is not None
    assert not target.exists() or target.stat().st_size == 0
    monkeypatch.setattr(isolation, "PICTURE_SECONDS", 1.0)
    started = time.monotonic()
    assert "busy" in str(workers.load(crashing.SPIN, "a", 10**8).error)
    assert time.monotonic() - started < 10
    assert workers.load(real_png, "a", 10**8).error is None


def test_a_worker_killed_while_idle_is_replaced(detector: Detector, real_png: bytes) -> None:
    crashes: list[None] = []
    pool = Workers(detector.bundle.preprocessing, 1, crashed=lambda: crashes.append(None))
    assert pool.load(real_png, "a", 10**8).error is None
    worker = pool._idle.queue[0]
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    assert pool.load(real_png, "a", 10**8).error is None
    assert len(crashes) == 1
    pool.close()


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


def test_videos(
    workers: Workers, detector: Detector, tmp_path: Path, flat: NDArray[np.uint8]
) -> None:
    pytest.importorskip("av")
    from clips import write_clip
    from distildire.video.judge import judge_prepared, judge_video

    data = write_clip(tmp_path / "a.mp4", [flat] * 12).read_bytes()
    there = judge_prepared(detector, workers.video(data), fpr=0.01, name="x")
    assert there == judge_video(detector, io.BytesIO(data), fpr=0.01, name="x")
    assert workers.video(b"no video").error
