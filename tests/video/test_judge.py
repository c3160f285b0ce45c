"""The verdict of a video, from those of its frames."""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("av")

from clips import clip_of
from distildire import Detector
from distildire.video.display import VideoError
from distildire.video.frames import sample_frames
from distildire.video.judge import judge_pooled, judge_video, pool

RGB = NDArray[np.uint8]


def test_verdict_has_the_fields_of_a_picture(
    detector: Detector, tmp_path: Path, real_frame: RGB
) -> None:
    path = clip_of(tmp_path / "a.mp4", (real_frame, 30))
    tree = judge_video(detector, path).to_dict()
    expected = detector.predict([real_frame])[0].to_dict()
    assert list(tree)[: len(expected)] == list(expected)
    assert tree["verdict"] == "real"
    assert tree["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tree["width"], tree["height"]) == (240, 200)
    assert tree["duration"] == pytest.approx(3.0, abs=0.15)
    times = [frame["time"] for frame in tree["timeline"]]
    assert times == sorted(times)
    assert times[0] < 0.5
    assert times[-1] > 2.5


def test_short_fake_segment_shows(
    detector: Detector, tmp_path: Path, real_frame: RGB, fake_frame: RGB
) -> None:
    # 8% of the clip, with no keyframe of its own.
    path = clip_of(
        tmp_path / "a.mp4", (real_frame, 110), (fake_frame, 16), (real_frame, 74),
        keyframes=100, scene_cuts=False,
    )  # fmt: skip
    verdict = judge_video(detector, path)
    assert verdict.verdict == "fake"
    assert verdict.suspicious is not None
    start, end = verdict.suspicious
    assert 10.5 <= start <= end <= 13.2
    assert verdict.typical_logit is not None
    assert verdict.typical_logit < 0
    assert verdict.scenes == 3


def test_open_files(detector: Detector, tmp_path: Path, fake_frame: RGB) -> None:
    path = clip_of(tmp_path / "a.webm", (fake_frame, 12), codec="libvpx", keyframes=4)
    from_path = judge_video(detector, path, name="x")
    from_bytes = judge_video(detector, io.BytesIO(path.read_bytes()), name="x")
    assert from_path == from_bytes
    assert from_path.verdict == "fake"


def test_nothing_to_judge(detector: Detector, tmp_path: Path, fake_frame: RGB) -> None:
    black = np.zeros_like(fake_frame)
    verdict = judge_video(detector, clip_of(tmp_path / "black.mp4", (black, 20)))
    assert (verdict.verdict, verdict.probability) == ("unsure", 0.5)
    assert verdict.note is not None
    assert verdict.note.startswith("nothing to judge")
    mixed = judge_video(detector, clip_of(tmp_path / "mixed.mp4", (black, 20), (fake_frame, 10)))
    assert mixed.verdict == "fake"
    assert min(frame.time for frame in mixed.timeline) >= 1.9
    assert "show nothing to judge" in str(mixed.note)


def test_frames_without_a_number(
    detector: Detector, tmp_path: Path, fake_frame: RGB, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflowing(crops: RGB) -> NDArray[np.float32]:
        return np.full(len(crops), np.nan, np.float32)

    monkeypatch.setattr(detector, "score_crops", overflowing)
    verdict = judge_video(detector, clip_of(tmp_path / "a.mp4", (fake_frame, 5)))
    assert verdict.error == "the model gives no number for it"
    assert verdict.probability is verdict.verdict is None


def test_what_the_file_says_of_itself(
    detector: Detector, tmp_path: Path, fake_frame: RGB, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clip_of(tmp_path / "a.mp4", (fake_frame, 5))
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    xmp = (
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{source}"/></rdf:RDF>'
    ).encode()
    uuid = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", 24 + len(xmp), b"uuid") + uuid + xmp)
    verdict = judge_video(detector, path)
    assert "trainedAlgorithmicMedia" in str(verdict.declares)
    assert verdict.declares == judge_video(detector, io.BytesIO(path.read_bytes())).declares
    monkeypatch.setattr("distildire.video.judge.WHOLE", path.stat().st_size - 1)
    assert judge_video(detector, path).declares == verdict.declares


def test_what_the_time_was_too_short_for_is_never_real(
    detector: Detector,
    tmp_path: Path,
    real_frame: RGB,
    fake_frame: RGB,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = clip_of(tmp_path / "real.mp4", (real_frame, 200), keyframes=5)
    fake = clip_of(tmp_path / "fake.mp4", (fake_frame, 200), keyframes=5)
    clock = map(float, itertools.count(0, 8))
    hurried = partial(sample_frames, clock=clock.__next__)
    for pixels in (2e9, 0.0):
        monkeypatch.setattr("distildire.video.frames.DENSE_PIXELS", pixels)
        monkeypatch.setattr("distildire.video.judge.sample_frames", sample_frames)
        assert judge_video(detector, real).verdict == "real"
        monkeypatch.setattr("distildire.video.judge.sample_frames", hurried)
        verdict = judge_video(detector, real)
        assert verdict.verdict == "unsure"
        assert "the time was enough" in str(verdict.note)
        assert judge_video(detector, fake).verdict == "fake"
    with pytest.raises(VideoError, match="too slow"):
        sample_frames(str(real), lambda rgb: rgb[None], 5, map(float, (0, 99, 99)).__next__)


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=60))
def test_pool_lies_within_and_ignores_one_outlier(logits: list[float]) -> None:
    score, first, last = pool(logits)
    assert min(logits) <= score <= max(logits)
    slow = max(
        (sorted(logits[i : i + 3])[1] for i in range(len(logits) - 2)),
        default=float(np.median(logits)),
    )
    assert score == pytest.approx(slow)
    assert 0 <= first <= last < len(logits)


def test_budget_is_split_among_scenes(detector: Detector) -> None:
    calibration = detector.bundle.calibration
    assert calibration is not None
    just_fake = calibration.thresholds(0.05)[1] + 1e-3
    assert judge_pooled(detector, just_fake, 0.05, scenes=1) == "fake"
    assert judge_pooled(detector, just_fake, 0.05, scenes=10) == "unsure"
