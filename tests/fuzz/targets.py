"""What is fuzzed: for each kind of input its seeds, and what must hold of whatever comes.

A check raises AssertionError, or whatever else the code lets out, where something is wrong; else
it gives the outcome in words, so that inputs with a new one can be damaged further.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from damage import seeds as pictures

MAX_PIXELS = 4_000_000
"""That pictures may have here, so that one takes no second."""

MAX_SECONDS = 2.0
"""Processor time of one input."""

MAX_GROWTH = 400 * 2**20
"""Bytes of resident memory that one input may add."""


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    check: Callable[[bytes], str]
    words: tuple[bytes, ...] = ()


def checked(target: Target, data: bytes) -> str:
    """The outcome of one input, within the limits of time and memory."""
    before, started = _peak(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = target.check(data)
    seconds, growth = time.process_time() - started, _peak() - before
    assert seconds < MAX_SECONDS, f"{seconds:.1f} s of processor time"
    assert growth < MAX_GROWTH, f"{growth / 2**20:.0f} MiB of memory"
    return outcome


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def sentence(words: str | None) -> str:
    """`words`, which must be one sentence for a person."""
    assert words, "no words"
    assert "\n" not in words, repr(words)
    assert len(words) < 2000, f"{len(words)} letters: {words[:200]}"
    assert " " in words.strip(), f"no sentence: {words!r}"
    assert "Traceback" not in words, words
    return words


@cache
def _scratch() -> Path:
    """A folder in memory, where there is one."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# Pictures


def _picture(data: bytes) -> str:
    from distildire.explain.storage import storage_of
    from distildire.gate import nothing_to_judge
    from distildire.io.pictures import ImageError, decode_bytes
    from distildire.io.preprocessing import Preprocessing
    from distildire.provenance import declares, findings

    said = declares(data)
    if said is not None:
        sentence(said)
    findings(data)
    try:
        rgb = decode_bytes(data, max_pixels=MAX_PIXELS)
        crops = Preprocessing(crop=144, crops=0, halves=2)(rgb)
    except ImageError as error:
        return sentence(str(error))
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3
    assert rgb.shape[0] * rgb.shape[1] <= MAX_PIXELS
    facts = storage_of(data)
    assert crops.shape == (2, 144, 144, 3)
    return f"{facts.format} {facts.mode} {nothing_to_judge(rgb)}"


# Video


@cache
def _clips() -> tuple[bytes, ...]:
    from clips import write_clip, write_sound

    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(6)]
    made = []
    for name, codec, options in (
        ("a.mp4", "libx264", {}),
        ("a.mov", "mpeg4", {}),
        ("a.mkv", "libx264", {}),
        ("a.webm", "libvpx", {}),
        ("a.avi", "mpeg4", {}),
        ("a.ts", "mpeg2video", {}),
        ("b.mp4", "libx265", {"sound": 0.3}),
        ("c.mp4", "libx264", {"container": {"movflags": "frag_keyframe+empty_moov"}}),
        ("b.avi", "mjpeg", {}),
    ):
        path = _scratch() / name
        with contextlib.suppress(ValueError):  # an encoder that this FFmpeg lacks
            made.append(write_clip(path, frames, codec=codec, keyframes=3, **options).read_bytes())
    made.append(write_sound(_scratch() / "a.m4a", 0.3).read_bytes())
    return tuple(made)


def _video(data: bytes) -> str:
    from distildire.io.preprocessing import Preprocessing
    from distildire.video.judge import prepare_video

    prepared = prepare_video(io.BytesIO(data), Preprocessing(crop=144, crops=1), 6)
    if prepared.frames is None:
        return sentence(prepared.error)
    frames = prepared.frames
    assert prepared.error is None
    assert 1 <= len(frames.chosen) == len(frames.scenes) <= 6
    times = [one.time for one in frames.chosen]
    assert times == sorted(times)
    assert all(np.isfinite(times))
    assert frames.duration is None or np.isfinite(frames.duration)
    return f"{frames.damaged > 0} {frames.ends is None} {frames.nothing} {len(frames.chosen)}"


# Manifests and lists: the first line says how the file is named.


@cache
def _tables() -> tuple[bytes, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        ("a.png", "real", "train", ""),
        ("sub/b.png", "fake", "test", "x"),
        ("Ä.png", "1", "", ""),
    ]
    plain = "path,label,split,generator\n" + "".join(",".join(row) + "\n" for row in rows)
    made = [
        b"m.csv\n" + plain.encode(),
        b"m.csv\n" + plain.encode("utf-16"),
        b"m.csv\n" + plain.encode("latin-1").replace(b",", b";"),
        b"m.csv\n" + plain.encode("utf-8-sig").replace(b",", b"\t"),
        b'm.csv\n"path","label"\n"a,b.png","real"\n"c""d.png","ai"\n',
        b"m.csv\nfilename,typ\na.png,real\nb.png,sd15\n",
        b"m.csv\npath,score\na.png,0.5\nb.png,-1e3\n",
        b"m.txt\na.png\nsub/b.png\n\nc.png\n",
        b'm.json\n[{"path": "a.png", "label": 0}, {"path": "b.png", "label": 1}]',
    ]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("path", "label", "split"))}
    for options in ({}, {"compression": "none"}, {"compression": "zstd", "use_dictionary": False}):
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, **options)
        made.append(b"m.parquet\n" + sink.getvalue())
    sink = io.BytesIO()
    pq.write_table(pa.table({"bytes": [b"x", None], "path": ["a.png", "b.png"]}), sink)
    made.append(b"m.parquet\n" + sink.getvalue())
    return tuple(made)


@cache
def _known() -> Any:
    from distildire.data.manifest import read_manifest

    path = _scratch() / "known.csv"
    path.write_text("path,label\na.png,real\nsub/b.png,fake\nb.png,fake\n")
    return read_manifest(path)


_TABLE_WORDS = (
    b",", b";", b"\t", b"|", b'"', b'""', b"\n", b"\r", b"\r\n", b"\0", b"\xef\xbb\xbf",
    b"\xff\xfe", b"\xfe\xff", b"path", b"label", b"real", b"fake", b"nan", b"None", b"s3://x/a.png",
    b"../", b"/", b"\xe9", b"\xed\xa0\x80", b"filename", b"typ", b"score",
    b"x" * 5000, b"[", b"{", b"null",
)  # fmt: skip


def _table(data: bytes) -> str:
    from distildire.data.lists import read_list
    from distildire.data.manifest import ManifestError, read_manifest
    from distildire.evaluate.scores import read_scores
    from distildire.scale.items import SourceError
    from distildire.scale.sources import items_of

    name, _, content = data.partition(b"\n")
    suffix = Path(name.decode("ascii", "replace")).suffix
    path = _scratch() / f"m{suffix if suffix in {'.csv', '.txt', '.json', '.parquet'} else ''}"
    path.write_bytes(content)
    outcomes = []
    for read, refusal in (
        (lambda: len(read_manifest(path)), ManifestError),
        (lambda: _items(items_of(path, sentence)), SourceError),
        (lambda: len(read_list(path)), ManifestError),
        (lambda: len(read_scores(path, _known())), ManifestError),
    ):
        try:
            outcomes.append(str(read()))
        except refusal as error:
            outcomes.append(sentence(str(error)))
    return "; ".join(outcomes)


def _items(found: Iterator[Any]) -> int:
    count = 0
    for item in found:
        item = item.held()
        if item.read is not None:
            try:
                item.read()
            except Exception as error:  # as the row takes it
                sentence(str(error))
        count += 1
    return count


# Bundles: a description, or a graph whose hash is right.


@cache
def _bundle() -> Path:
    import standin

    return standin.make_bundle(_scratch() / "bundle")


@cache
def _bundles() -> tuple[bytes, ...]:
    about = json.loads((_bundle() / "bundle.json").read_text())
    torch = {"student": {"backbone": "resnet18"}, "noise": "nano"}
    heat = {"sentence": "It finds nothing at all.", "auc": 0.5}
    more = [
        about,
        about | {"calibration": None},
        about | {"torch": torch},
        about | {"heatmap": heat},
        about | {"openvino": {"model.xml": "0" * 64, "model.bin": "0" * 64}},
    ]
    return (*(json.dumps(one).encode() for one in more), (_bundle() / "model.onnx").read_bytes())


def _bundled(data: bytes) -> str:
    from distildire.bundle import BundleError
    from distildire.detector import Detector

    folder = _scratch() / "damaged"
    folder.mkdir(exist_ok=True)
    if data[:1] == b"{":
        shutil.copy(_bundle() / "model.onnx", folder)
        (folder / "bundle.json").write_bytes(data)
    else:
        (folder / "model.onnx").write_bytes(data)
        text = (_bundle() / "bundle.json").read_text()
        old = json.loads(text)["sha256"]
        (folder / "bundle.json").write_text(text.replace(old, hashlib.sha256(data).hexdigest()))
    try:
        detector = Detector(folder, threads=1)
        verdict = detector.predict(_photo())[0]
    except (BundleError, ValueError) as error:
        return sentence(str(error))
    return sentence(verdict.error) if verdict.error is not None else str(verdict.verdict)


@cache
def _photo() -> Any:
    rng = np.random.default_rng(3)
    return rng.integers(0, 255, (200, 240, 3)).astype(np.uint8)


# Multipart bodies: the first line is the content type.


@cache
def _client() -> Any:
    from fastapi.testclient import TestClient

    from distildire.detector import Detector
    from distildire.web.app import create_app
    from distildire.web.settings import Settings

    app = create_app(Detector(_bundle(), threads=1), Settings(max_body=2**20, max_files=8))
    client = TestClient(app)
    client.__enter__()
    return client


@cache
def _bodies() -> tuple[bytes, ...]:
    kind = b"multipart/form-data; boundary=b\n"
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n'
    photo = pictures()[0]
    names = (b"a.png", b"../a", "Ä".encode(), "Ä".encode("latin-1"), b'a\\"b', b"")
    made = [kind + head % name + b"\r\n" + photo + b"\r\n--b--\r\n" for name in names]
    extended = (
        b"--b\r\nContent-Disposition: form-data; name=file; filename*=UTF-8''%C3%84.png\r\n\r\n"
    )
    made += [
        kind + head % b"a" + b"Content-Type: image/png\r\nX-Y: z\r\n\r\n" + photo + b"\r\n--b--",
        kind + b"".join(head % b"a" + b"\r\nx\r\n" for _ in range(10)) + b"--b--\r\n",
        kind + b'--b\r\nContent-Disposition: form-data; name="fpr"\r\n\r\n0.05\r\n--b--\r\n',
        kind + extended + photo + b"\r\n--b--\r\n",
        kind + b"preamble\r\n" + head % b"a" + b"\r\n" + photo + b"\r\n--b--\r\nepilogue",
        b'Multipart/Form-Data; charset=utf-16; boundary="b"\n' + head % b"a" + b"\r\nx\r\n--b--",
        b"image/jpeg\n" + photo,
        b"application/json\n" + b'{"url": "http://127.0.0.1/x"}',
        b"multipart/form-data\n" + photo,
    ]
    return tuple(made)


_BODY_WORDS = (
    b"\r\n", b"\r\n\r\n", b"--b", b"\r\n--b--", b"--", b'name="file"', b"; filename*=UTF-8''%80",
    b"; filename*=x'y'z", b"; filename=", b"charset=utf-7", b"boundary=", b"boundary=" + b"b" * 300,
    b"Content-Disposition: form-data", b"Content-Type: multipart/mixed; boundary=c\r\n", b":",
    b"\0", b"Content-Transfer-Encoding: base64\r\n", b"_charset_", b"\xff",
    b"X: " + b"y" * 9000 + b"\r\n",
)  # fmt: skip

_ANSWERS = {200, 400, 413, 422}


def _body(data: bytes) -> str:
    kind, _, body = data.partition(b"\n")
    kind = bytes(byte for byte in kind if byte >= 32 or byte == 9)
    path = "/v1/explain" if len(body) % 50 == 0 else "/v1/detect"
    answer = _client().post(path, content=body, headers={b"content-type": kind})
    assert answer.status_code in _ANSWERS, f"{answer.status_code}: {answer.text[:500]}"
    if answer.status_code == 200:
        return "200"
    assert answer.headers["content-type"] == "application/problem+json"
    return f"{answer.status_code} {sentence(answer.json()['detail'])}"


TARGETS = {
    target.name: target
    for target in (
        Target("pictures", pictures, _picture),
        Target("video", _clips, _video),
        Target("manifests", _tables, _table, _TABLE_WORDS),
        Target("bundles", _bundles, _bundled),
        Target("multipart", _bodies, _body, _BODY_WORDS),
    )
}
