"""Requests that mean harm: the service answers each in words and keeps its memory.

`python tests/web/test_hostile.py COUNT [MODEL]` prints the curve of the service's memory.
"""

from __future__ import annotations

import random
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from live import running, serving

from damage import seeds
from distildire import Detector
from distildire.web.settings import Settings

CLIENTS = 8
MAX_BODY = 2**21
FINE = {200, 400, 401, 404, 405, 408, 413, 422, 429, 503}


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


def bombard(url: str, count: int, share: float = 0.05, seed: int = 0) -> dict[int, int]:
    """Send `count` requests from several clients; gives the number of each status."""
    good = [data for data in seeds() if len(data) > 100]

    def client(number: int) -> dict[int, int]:
        chance = random.Random(f"{seed} {number}")
        seen: dict[int, int] = {}
        with httpx.Client(base_url=url, timeout=120) as session:
            for _ in range(count // CLIENTS):
                if chance.random() < share:
                    body, kind = hostile(chance)
                else:
                    body, kind = chance.choice(good), "image/png"
                path = "/v1/explain" if chance.random() < 0.01 else "/v1/detect"
                try:
                    answer = session.post(path, content=body, headers={"Content-Type": kind})
                except httpx.TransportError:
                    # The answer to a body over the limit may be lost: the connection is
                    # closed while the client still sends.
                    if len(body) <= MAX_BODY:
                        raise
                    seen[413] = seen.get(413, 0) + 1
                    continue
                seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                if answer.status_code != 200:
                    assert answer.headers["content-type"] == "application/problem+json"
        return seen

    total: dict[int, int] = {}
    with ThreadPoolExecutor(CLIENTS) as pool:
        for seen in pool.map(client, range(CLIENTS)):
            for status, number in seen.items():
                total[status] = total.get(status, 0) + number
    return total


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


# A server that answers before a large body is read may reset the connection under the client.
@pytest.mark.slow
def test_hostile_bodies_are_refused_in_words(detector: Detector) -> None:
    with running(detector, Settings(max_body=MAX_BODY)) as url:
        cut_off(url)
        statuses = bombard(url, 160, share=0.5)
        assert set(statuses) <= FINE
        assert httpx.get(f"{url}/healthz").json()["pending"] == 0


@pytest.mark.slow
def test_memory_stays_flat() -> None:
    # The bundled model: its memory in ONNX Runtime is what could grow.
    curve = soak("nano", 10_000)
    assert max(size for _, size in curve) < 1.05 * curve[0][1]


def soak(model: str, count: int, steps: int = 20) -> list[tuple[int, float]]:
    """(requests, resident bytes) from the first thousand requests on; no fault of the server.

    The service is a process of its own, so that the clients' memory is not counted.
    """
    curve, sent = [], 0
    with serving(model, max_body=MAX_BODY) as (_, url):
        cut_off(url)
        for step, size in enumerate([1000, *[(count - 1000) // steps] * steps]):
            statuses = bombard(url, size, seed=step)
            assert set(statuses) <= FINE
            sent += size
            curve.append((sent, resident_bytes(url)))
            print(f"{sent} requests: {curve[-1][1] / 2**20:.1f} MiB  {statuses}", flush=True)
    return curve


def resident_bytes(url: str) -> float:
    """Memory of the service as its metrics say."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(
        float(w)
        for n, _, w in (line.partition(" ") for line in lines)
        if n == "process_resident_memory_bytes"
    )


if __name__ == "__main__":
    soak(sys.argv[2] if len(sys.argv) > 2 else "nano", int(sys.argv[1]))
