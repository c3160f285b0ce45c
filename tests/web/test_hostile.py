"""Requests that mean harm: the service answers each in words and keeps its memory.

`python tests/web/test_hostile.py COUNT [MODEL]` prints the curve of the service's memory.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from live import running, serving

import crashing_decoder as crashing
from damage import seeds
from distildire import Detector
from distildire.web.settings import Settings
from processes import children_of

CLIENTS = 8
MAX_BODY = 2**21
HOSTILE = frozenset({200, 400, 413, 422})


def hostile(chance: random.Random) -> tuple[bytes, str]:
    """A body and its content type."""
    data = bytearray(chance.choice(seeds()))
    for _ in range(chance.randint(1, 20)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    bodies = [
        (bytes(data), "image/jpeg"),
        (bytes(data[: chance.randrange(len(data))]), "image/png"),
        (chance.randbytes(chance.randrange(5000)), "application/octet-stream"),
        (b"", "image/png"),
        (part + bytes(data), "multipart/form-data; boundary=b"),
        (part * 200 + b"--b--", "multipart/form-data; boundary=b"),
        (b"\r\n".join([part + b"x"] * 70) + b"\r\n--b--", "multipart/form-data; boundary=b"),
        (b"--b\r\n" + b"X: y\r\n" * 2000, "multipart/form-data; boundary=b"),
        (b"x" * 3_000_000, "image/png"),
        (bytes(data), "multipart/form-data"),
        (b"\x00\x00\x00\x18ftypmp42" + chance.randbytes(2000), "video/mp4"),
        (b'{"url": "http://127.0.0.1:9/a.png"}', "application/json"),
    ]
    return chance.choice(bodies)


CRASHES = (crashing.ABORT, crashing.SEGFAULT)


@dataclass(frozen=True)
class Sent:
    """One request, and what kind it is: good, hostile, or one that crashes its decoder."""

    sort: str
    path: str
    body: bytes
    kind: str = "image/png"
    fine: frozenset[int] = frozenset({200})


def drawn(chance: random.Random, hostile_share: float, crash_share: float) -> Sent:
    """One request of a mix."""
    dice = chance.random()
    if dice < crash_share:
        path = chance.choice(("/v1/detect", "/v1/detect", "/v1/explain", "/v1/record"))
        return Sent("crash", path, chance.choice(CRASHES), fine=frozenset({422, 503}))
    if dice < crash_share + hostile_share:
        path = "/v1/explain" if chance.random() < 0.02 else "/v1/detect"
        return Sent("hostile", path, *hostile(chance), fine=HOSTILE)
    good = [data for data in seeds() if len(data) > 100]
    dice = chance.random()
    if dice < 0.04:
        return Sent("good", chance.choice(("/v1/explain", "/v1/record")), chance.choice(good))
    if dice < 0.07:
        return Sent("good", "/v1/detect", clip(), "video/mp4")
    if dice < 0.17:
        head = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\n\r\n%s\r\n'
        )
        parts = [head % (i, chance.choice(good)) for i in range(chance.randint(1, 4))]
        body = b"".join(parts) + b"--b--\r\n"
        return Sent("good", "/v1/detect", body, "multipart/form-data; boundary=b")
    return Sent("good", "/v1/detect", chance.choice(good))


@cache
def clip() -> bytes:
    from clips import write_clip

    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(6)]
    with tempfile.TemporaryDirectory() as folder:
        return write_clip(Path(folder) / "a.mp4", frames).read_bytes()


def bombard(
    url: str, count: int, share: float = 0.05, crashes: float = 0.0, seed: int = 0
) -> Counter[tuple[str, int]]:
    """Send `count` requests from several clients; gives the number of each sort and status."""

    def client(number: int) -> Counter[tuple[str, int]]:
        chance = random.Random(f"{seed} {number}")
        seen: Counter[tuple[str, int]] = Counter()
        with httpx.Client(base_url=url, timeout=300) as session:
            for _ in range(count // CLIENTS):
                sent = drawn(chance, share, crashes)
                status = ask(session, sent)
                assert status in sent.fine, (sent.sort, sent.path, sent.kind, status)
                seen[sent.sort, status] += 1
        return seen

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS)), Counter())


def ask(session: httpx.Client, sent: Sent) -> int:
    """Send one; gives the status."""
    answer = session.post(sent.path, content=sent.body, headers={"Content-Type": sent.kind})
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
    if sent.sort == "crash":
        assert "makes its decoder crash" in answer.text or "Retry-After" in answer.headers
    return answer.status_code


def cut_off(url: str) -> None:
    """Connections that break off in the middle of a body, or say nothing sensible."""
    host, port = url.removeprefix("http://").split(":")
    heads = [
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nabc",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc",
        b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ]
    for head in heads:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(head)


@pytest.mark.slow
def test_hostile_bodies_are_refused_in_words(detector: Detector) -> None:
    with running(detector, Settings(max_body=MAX_BODY)) as url:
        cut_off(url)
        assert bombard(url, 160, share=0.5).total() == 160
        assert httpx.get(f"{url}/healthz").json()["pending"] == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory as Linux tells it")
def test_memory_stays_flat_and_nothing_is_lost() -> None:
    # The bundled model: its memory in ONNX Runtime is what could grow.
    answers, curve = soak("nano", 10_000)
    assert answers.total() == 10_000
    assert max(size for _, size in curve) < 1.05 * curve[0][1]


def soak(
    model: str, count: int, steps: int = 20
) -> tuple[Counter[tuple[str, int]], list[tuple[int, float]]]:
    """(answers, [(requests, bytes) from the first thousand requests on]); a tenth is hostile.

    One in a hundred crashes its decoder. The bytes are the resident memory of the service and its
    decoding processes, which are apart from the clients.
    """
    curve, answers = [], Counter()
    limits = {"max_body": MAX_BODY, "answer_seconds": 600, "isolate": True}
    with serving(model, decoder="crashing_decoder:decode", **limits) as (
        process, url,
    ):  # fmt: skip
        cut_off(url)
        for step, size in enumerate([1000, *[(count - 1000) // steps // 8 * 8] * steps]):
            answers += bombard(url, size, 0.1, 0.01, seed=step)
            if step == steps:
                answers += bombard(url, count - answers.total(), 0.1, 0.01, seed=steps + 1)
            own, workers = resident(process), sum(map(resident, children_of(process)))
            curve.append((answers.total(), own + workers))
            print(
                f"{answers.total()} requests: {own / 2**20:.1f} MiB and {workers / 2**20:.1f} "
                f"MiB of decoders  {dict(answers)}",
                flush=True,
            )
        crashed = sum(n for (sort, _), n in answers.items() if sort == "crash")
        metrics = httpx.get(f"{url}/metrics").text
        assert f"distildire_decoder_crashes_total {float(crashed)}" in metrics
        assert httpx.get(f"{url}/healthz").json()["pending"] == 0
    return answers, curve


def resident(process: int) -> float:
    """Resident bytes of a process; 0 where it has just ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:
        return 0.0
    return float(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    soak(sys.argv[2] if len(sys.argv) > 2 else "nano", int(sys.argv[1]))
