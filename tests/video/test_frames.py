"""Which frames of a video are looked at."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("av")

import av

from clips import clip_of
from distildire import Detector
from distildire.video.frames import Candidate, choose, sample_frames
from distildire.video.judge import judge_video
from distildire.video.reader import Reader

RGB = NDArray[np.uint8]


def test_variable_frame_rate(
    detector: Detector, tmp_path: Path, real_frame: RGB, fake_frame: RGB
) -> None:
    times = [*np.arange(0, 1, 0.02), *np.arange(1, 9, 0.5)]
    path = clip_of(tmp_path / "a.mp4", (real_frame, 50), (fake_frame, 16), times=times, keyframes=5)
    verdict = judge_video(detector, path)
    assert verdict.verdict == "fake"
    assert verdict.timeline[-1].time == pytest.approx(8.5, abs=0.6)


def test_what_is_predicted_from_damage_is_left_out(tmp_path: Path, real_frame: RGB) -> None:
    whole = clip_of(tmp_path / "a.mp4", (real_frame, 40), keyframes=10, scene_cuts=False)
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    start, size = packets[12].pos, packets[12].size
    data[start + 4 : start + size] = bytes(size - 4)
    frames = sample_frames(io.BytesIO(bytes(data)), lambda rgb: rgb[None], 48)
    assert frames.damaged
    times = [candidate.time for candidate in frames.chosen]
    assert not [time for time in times if 1.15 < time < 1.95]
    assert {0.0, 2.0, 3.0} <= {round(time, 2) for time in times}


def test_too_small(detector: Detector, tmp_path: Path, real_frame: RGB) -> None:
    path = clip_of(tmp_path / "a.mp4", (real_frame[:24, :24], 5))
    assert "too small" in str(judge_video(detector, path).error)


def test_long_clip_is_read_by_keyframes(
    detector: Detector, tmp_path: Path, real_frame: RGB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distildire.video.frames.DENSE_PIXELS", 0.0)
    path = clip_of(tmp_path / "a.mp4", (real_frame, 200), keyframes=5)
    verdict = judge_video(detector, path, frames=10)
    assert len(verdict.timeline) == 10
    assert verdict.timeline[0].time < 3
    assert verdict.timeline[-1].time > 17


def test_keyframes_far_apart_are_reached_by_seeking(
    tmp_path: Path, real_frame: RGB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distildire.video.frames.DENSE_PIXELS", 0.0)
    path = clip_of(tmp_path / "a.mp4", (real_frame[:64, :64], 2000), keyframes=450)
    packets: list[object] = []
    read = Reader.packets

    def counted(reader: Reader) -> Iterator[object]:
        for packet in read(reader):
            packets.append(packet)
            yield packet

    monkeypatch.setattr(Reader, "packets", counted)
    found = sample_frames(str(path), lambda rgb: rgb[None], 5)
    assert [round(candidate.time) for candidate in found.chosen] == [0, 45, 90, 135, 180]
    assert len(packets) < 20


def test_every_scene_gets_a_frame() -> None:
    def frame(time: float, level: float) -> Candidate:
        return Candidate(time, np.zeros((1, 1, 1, 3), np.uint8), np.full((16, 16), level, "f4"))

    levels = [0] * 50 + [100] + [200] * 20
    kept, scenes = choose([frame(i, level) for i, level in enumerate(levels)], 10)
    assert len(kept) == 10
    assert set(scenes) == {0, 1, 2}
    assert kept[scenes.index(1)].time == 50
    assert scenes.count(0) > scenes.count(2)
