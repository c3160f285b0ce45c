from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("av")

import av

from clips import write_clip, write_sound
from distildire import Detector
from distildire.video.display import VideoError
from distildire.video.frames import Candidate, choose, sample_frames
from distildire.video.judge import judge_pooled, judge_video, pool
from distildire.video.reader import Reader

RGB = NDArray[np.uint8]


@pytest.fixture(scope="module")
def real_frame(busy: RGB) -> RGB:
    """Grain that survives H.264."""
    return busy


@pytest.fixture(scope="module")
def fake_frame(flat: RGB) -> RGB:
    """Of another scene: darker."""
    return flat // 2


def clip_of(path: Path, *parts: tuple[RGB, int], **options: object) -> Path:
    frames = itertools.chain.from_iterable(itertools.repeat(f, n) for f, n in parts)
    return write_clip(path, frames, **options)  # type: ignore[arg-type]


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


def test_variable_frame_rate(
    detector: Detector, tmp_path: Path, real_frame: RGB, fake_frame: RGB
) -> None:
    times = [*np.arange(0, 1, 0.02), *np.arange(1, 9, 0.5)]
    path = clip_of(tmp_path / "a.mp4", (real_frame, 50), (fake_frame, 16), times=times, keyframes=5)
    verdict = judge_video(detector, path)
    assert verdict.verdict == "fake"
    assert verdict.timeline[-1].time == pytest.approx(8.5, abs=0.6)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda rgb: np.rot90(rgb, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda rgb: rgb[::-1, ::-1]),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda rgb: rgb.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda rgb: np.rot90(rgb, 2).transpose(1, 0, 2)),
    ],
    ids=["quarter", "three quarters", "half", "mirrored", "upside down", "diagonal", "other"],
)
def test_display_matrices(
    tmp_path: Path, matrix: tuple[int, ...], turn: Callable[[RGB], RGB]
) -> None:
    """The track header's matrix (ISO 14496-12, 8.3.2) on a picture without any symmetry."""
    corners = np.full((120, 160, 3), 200, np.uint8)
    corners[:40, :60], corners[:40, 100:] = 30, 110
    path = clip_of(tmp_path / "a.mp4", (corners, 5))
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    frames = sample_frames(io.BytesIO(bytes(data)), lambda rgb: rgb[None], 1)
    shown, expected = frames.chosen[0].crops[0], turn(corners)
    assert (frames.height, frames.width) == shown.shape[:2] == expected.shape[:2]
    assert np.abs(shown.astype(int) - expected).mean() < 8


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


def test_sound_that_outlasts_the_pictures_is_no_cut(
    detector: Detector, tmp_path: Path, real_frame: RGB
) -> None:
    path = clip_of(tmp_path / "a.mp4", (real_frame, 20), sound=4.0)
    assert judge_video(detector, path).note is None


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(
    detector: Detector, tmp_path: Path, real_frame: RGB, transfer: int, name: str
) -> None:
    path = clip_of(tmp_path / "a.mp4", (real_frame, 5), transfer=transfer)
    assert f"HDR video ({name})" in str(judge_video(detector, path).error)


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


def test_every_scene_gets_a_frame() -> None:
    def frame(time: float, level: float) -> Candidate:
        return Candidate(time, np.zeros((1, 1, 1, 3), np.uint8), np.full((16, 16), level, "f4"))

    levels = [0] * 50 + [100] + [200] * 20
    kept, scenes = choose([frame(i, level) for i, level in enumerate(levels)], 10)
    assert len(kept) == 10
    assert set(scenes) == {0, 1, 2}
    assert kept[scenes.index(1)].time == 50
    assert scenes.count(0) > scenes.count(2)
