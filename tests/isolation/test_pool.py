from __future__ import annotations

import io
import os
import signal
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

import crashing_decoder as crashing
from distildire import Detector
from distildire.explain.facts import facts_of
from distildire.io.pictures import ImageError, decode_bytes
from distildire.isolation import pool
from distildire.isolation.pool import Workers
from distildire.loading import Unread

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits are those of POSIX")

DECODER = "crashing_decoder:decode"


@pytest.fixture(scope="module")
def workers(detector: Detector) -> Iterator[Workers]:
    made = Workers(detector.bundle.preprocessing, 2, decoder=DECODER)
    yield made
    made.close()


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


def test_items_are_read_here(
    workers: Workers, detector: Detector, real_png: bytes, tmp_path: Path
) -> None:
    def fail() -> bytes:
        raise OSError("the store is gone")

    file = tmp_path / "a.png"
    file.write_bytes(real_png)
    gone = tmp_path / "gone.png"
    for item in (file, str(file), Unread("x::a", lambda: real_png), Unread("b", fail), gone):
        here, there = detector.load(item), workers.load_item(item)
        assert {**vars(here), "crops": 0} == {**vars(there), "crops": 0}
        assert np.array_equal(here.crops, there.crops)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only files"):
        workers.load_item(np.zeros((40, 40, 3), np.uint8))


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
    with monkeypatch.context() as patched:
        started = time.monotonic()
        patched.setattr(pool, "PICTURE_SECONDS", 1.0)
        assert "busy" in str(workers.load(crashing.SPIN, "a", 10**8).error)
    # Less than it takes at the limit that holds elsewhere.
    assert time.monotonic() - started < pool.PICTURE_SECONDS
    assert workers.load(real_png, "a", 10**8).error is None


def test_a_worker_killed_while_idle_is_replaced(detector: Detector, real_png: bytes) -> None:
    crashes: list[None] = []
    made = Workers(
        detector.bundle.preprocessing, 1, decoder=DECODER, crashed=lambda: crashes.append(None)
    )
    told = str(made.load(crashing.TELL, "a", 10**8).error)
    worker = int(told.removeprefix("process "))
    os.kill(worker, signal.SIGKILL)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    assert made.load(real_png, "a", 10**8).error is None
    assert len(crashes) == 1
    made.close()


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


def test_facts(workers: Workers, real_png: bytes) -> None:
    about, exif, file = PngImagePlugin.PngInfo(), Image.Exif(), io.BytesIO()
    about.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    exif[0x0110] = "Camera Ä"
    Image.new("RGB", (64, 48)).save(file, "PNG", pnginfo=about, exif=exif)
    for data in (real_png, file.getvalue(), file.getvalue() + b"behind"):
        assert workers.facts(data) == facts_of(data)
    assert workers.facts(file.getvalue()).origin.findings


def test_facts_have_limits(
    workers: Workers, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = struct.pack(">I4sI", 0, b"prVt", zlib.crc32(b"prVt"))
    with monkeypatch.context() as patched:
        patched.setattr(pool, "PICTURE_SECONDS", 0.02)
        with pytest.raises(ImageError, match="busy"):
            workers.facts(real_png[:33] + 100_000 * empty + real_png[33:])
    assert workers.facts(real_png) == facts_of(real_png)


@pytest.mark.skipif(sys.platform != "linux", reason="environments as Linux tells them")
def test_workers_know_no_keys(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISTILDIRE_API_KEY", "AWS_SECRET_ACCESS_KEY", "LC_TIME"):
        monkeypatch.setenv(name, "C")
    made = Workers(detector.bundle.preprocessing, 1, decoder=DECODER)
    worker = str(made.load(crashing.TELL, "a", 10**8).error).removeprefix("process ")
    variables = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    made.close()
    names = {variable.partition(b"=")[0] for variable in variables}
    assert {b"PATH", b"LC_TIME", b"OMP_NUM_THREADS"} <= names
    assert not [name for name in names if b"KEY" in name]
