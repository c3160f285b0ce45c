"""What a file gives: damage, cuts, and nothing but itself."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("av")

import av

from clips import clip_of, write_clip, write_sound
from distildire import Detector
from distildire.video.judge import judge_video
from distildire.video.reader import _Gaps

RGB = NDArray[np.uint8]


GROWTH = """
import resource, sys
import numpy as np
from distildire.io.preprocessing import Preprocessing
from distildire.video.judge import prepare_video
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
prepare_video(sys.argv[1], Preprocessing(crop=144, crops=1), 6)
before = peak()
prepare_video(sys.argv[2], Preprocessing(crop=144, crops=1), 6)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory as Linux tells it")
def test_a_frame_that_says_it_is_huge_takes_no_memory(tmp_path: Path, fake_frame: RGB) -> None:
    """Of 12,000 pixels a side, of which a decoder would make room for several."""
    path = clip_of(tmp_path / "a.webm", (fake_frame, 12), codec="libvpx", keyframes=4)
    whole = path.read_bytes()
    start = b"\x9d\x01\x2a"  # of a key frame (RFC 6386), before its width and height
    second = whole.index(start, whole.index(start) + 1)
    huge = struct.pack("<HH", 12000, 12000)
    damaged = whole[: second + 3] + huge + whole[second + 7 :]
    (tmp_path / "b.webm").write_bytes(damaged)
    command = [sys.executable, "-c", GROWTH, path, tmp_path / "b.webm"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200  # MiB


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("dense", [True, False])
def test_a_cut_file_says_how_much_was_seen(
    detector: Detector,
    tmp_path: Path,
    real_frame: RGB,
    kind: str,
    dense: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not dense:
        monkeypatch.setattr("distildire.video.frames.DENSE_PIXELS", 0.0)
    options = {"movflags": "faststart"} if kind == "mp4" else {}
    path = clip_of(tmp_path / f"a.{kind}", (real_frame, 60), keyframes=5, container=options)
    data = path.read_bytes()
    whole = judge_video(detector, io.BytesIO(data))
    assert (whole.verdict, whole.note) == ("real", None)
    cut = judge_video(detector, io.BytesIO(data[: len(data) // 2]))
    assert cut.verdict == "unsure"
    found = re.search(r"seen to (\d\.\d) of 6\.0 s", str(cut.note))
    assert found is not None, cut.note
    assert 2.0 <= float(found[1]) <= 3.5


def test_a_cut_transport_stream_says_how_much_was_seen(
    detector: Detector, tmp_path: Path, real_frame: RGB
) -> None:
    data = clip_of(tmp_path / "a.ts", (real_frame, 60), keyframes=5).read_bytes()
    whole = judge_video(detector, io.BytesIO(data))
    assert (whole.verdict, whole.note) == ("real", None)
    for cut in (len(data) // 2 // 188 * 188 + 37, 188 * 40 + 1):
        part = judge_video(detector, io.BytesIO(data[:cut]))
        assert part.verdict == "unsure"
        found = re.search(r"the file ends early: seen to (\d\.\d)( of \d\.\d)? s", str(part.note))
        assert found is not None, part.note
        assert abs(float(found[1]) - 6.0 * cut / len(data)) < 1.0


@pytest.mark.parametrize("kind", ["ts", "mkv"])
def test_a_damaged_file_says_how_much_was_seen(
    detector: Detector, tmp_path: Path, real_frame: RGB, kind: str
) -> None:
    whole = clip_of(tmp_path / f"a.{kind}", (real_frame, 60), keyframes=10, scene_cuts=False)
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    damaged = range(packets[31].pos, packets[59].pos, 97)
    for place in damaged:
        data[place] ^= 0xFF
    verdict = judge_video(detector, io.BytesIO(bytes(data)))
    assert verdict.verdict == "unsure"
    found = re.search(r"passed over; seen to (\d\.\d) of \d\.\d s", str(verdict.note))
    assert found is not None, verdict.note
    assert 2.8 <= float(found[1]) <= 6.0


@pytest.mark.parametrize(("kind", "sound"), [("mkv", 0.0), ("mkv", 6.0), ("webm", 0.0)])
def test_what_a_reader_passes_over_is_damage(
    detector: Detector, tmp_path: Path, real_frame: RGB, kind: str, sound: float
) -> None:
    """It looks for the next cluster, and says nothing."""
    codec = "libvpx" if kind == "webm" else "libx264"
    frames = (np.roll(real_frame, 5 * number, axis=1) for number in range(60))
    path = write_clip(tmp_path / f"a.{kind}", frames, keyframes=10, codec=codec,
                      sound=sound)  # fmt: skip
    data = path.read_bytes()
    assert judge_video(detector, io.BytesIO(data)).note is None
    with av.open(str(path)) as container:
        start = [packet for packet in container.demux(video=0) if packet.size][25].pos - 2
    noise = np.random.default_rng(0).bytes(5000)
    for hole, rest in ((bytes(5000), 5000), (noise, 5000), (b"", 1)):
        damaged = data[:start] + hole + data[start + rest :]
        verdict = judge_video(detector, io.BytesIO(damaged))
        assert verdict.verdict == "unsure"
        assert "passed over; seen to" in str(verdict.note)


@pytest.mark.parametrize("preset", ["ultrafast", "medium"])  # without and with frames between
def test_pauses_of_a_variable_frame_rate_are_no_damage(
    detector: Detector, tmp_path: Path, real_frame: RGB, preset: str
) -> None:
    times = [*np.arange(0, 1, 0.04), *np.arange(1.5, 9, 0.7), 20.0, *np.arange(20.04, 21, 0.04)]
    path = clip_of(tmp_path / "a.mkv", (real_frame, len(times)), times=times, keyframes=7,
                   preset=preset, fps=25, sound=21.0)  # fmt: skip
    verdict = judge_video(detector, path)
    assert (verdict.verdict, verdict.note) == ("real", None)


def test_bytes_beside_those_of_packets_are_no_damage() -> None:
    """An alpha channel is in each block of a WebM, behind its picture."""
    stream = SimpleNamespace(index=0, time_base=Fraction(1, 1000), average_rate=Fraction(25))
    gaps, end, told = _Gaps(stream), 0, []
    for moment in (0, 40, 80, 2000, 2040, 5000):
        packet = SimpleNamespace(pos=end, size=9000, stream=stream, pts=moment, duration=40)
        told.append(gaps.ends_with(packet))
        end += 9000 + 3000
    assert not any(told)


def test_sound_that_outlasts_the_pictures_is_no_cut(
    detector: Detector, tmp_path: Path, real_frame: RGB
) -> None:
    path = clip_of(tmp_path / "a.mp4", (real_frame, 20), sound=4.0)
    assert judge_video(detector, path).note is None


def test_corrupt_packets(detector: Detector, tmp_path: Path, real_frame: RGB) -> None:
    path = clip_of(tmp_path / "a.mkv", (real_frame, 60), keyframes=10)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for start in rng.integers(len(data) // 4, len(data) - 500, 12):
        data[start : start + 400] = rng.bytes(400)
    verdict = judge_video(detector, io.BytesIO(bytes(data)))
    assert verdict.error is None
    assert verdict.timeline
    assert verdict.verdict == "unsure"
    assert "passed over" in str(verdict.note)


def test_a_video_of_damaged_frames_alone(
    detector: Detector, tmp_path: Path, real_frame: RGB
) -> None:
    data = bytearray(clip_of(tmp_path / "a.mkv", (real_frame, 30), keyframes=100).read_bytes())
    with av.open(io.BytesIO(bytes(data))) as container:
        first = next(container.demux(video=0))
    middle = first.pos + first.size // 2
    data[middle : middle + 2000] = np.random.default_rng(1).bytes(2000)
    verdict = judge_video(detector, io.BytesIO(bytes(data)))
    assert (verdict.verdict, verdict.probability) == ("unsure", 0.5)
    assert "every frame that can be decoded is damaged" in str(verdict.note)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "opened"), (b"\x00\x00\x00\x18ftypmp42" + bytes(100), "opened"), (b"x" * 999, "opened")],
)
def test_no_video(detector: Detector, data: bytes, words: str) -> None:
    verdict = judge_video(detector, io.BytesIO(data))
    assert verdict.error is not None
    assert words in verdict.error
    assert verdict.probability is None


def test_missing_file(detector: Detector, tmp_path: Path) -> None:
    assert "no such file" in str(judge_video(detector, tmp_path / "none.mp4").error)


def test_sound_only(detector: Detector, tmp_path: Path) -> None:
    verdict = judge_video(detector, write_sound(tmp_path / "a.m4a"))
    assert verdict.error is not None
    assert "only sound" in verdict.error


def test_nothing_is_fetched(detector: Detector, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.mp4"
        for source in (url, Path(url), url.upper()):
            assert "nothing is fetched" in str(judge_video(detector, source).error)
        with pytest.raises(TimeoutError):
            listener.accept()
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "a pipe" in str(judge_video(detector, tmp_path / "pipe.mp4").error)


def test_a_script_opens_no_other_file(detector: Detector, tmp_path: Path, real_frame: RGB) -> None:
    clip_of(tmp_path / "a.mp4", (real_frame, 5))
    script = tmp_path / "b.mp4"
    for text in (
        "ffconcat version 1.0\nfile a.mp4\n",
        f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/a.mp4\n#EXT-X-ENDLIST\n",
    ):
        script.write_text(text)
        for source in (script, io.BytesIO(script.read_bytes())):
            verdict = judge_video(detector, source)
            assert "not a video that can be opened" in str(verdict.error)
    colon = (tmp_path / "a.mp4").rename(tmp_path / "concat:a.mp4")
    with contextlib.chdir(tmp_path):
        assert judge_video(detector, colon.name).error is None
