"""Served throughput against `detect` on the same files, in turns on the same machine.

    python benchmarks/serving.py [--clients 8] [--files 400] [--rounds 3] [--multipart]

The files are JPEGs of 500 x 375 made from examples/. The service is `distildire serve` in a
process of its own, its clients keep their connections. `detect` is a process that is warm
before it is timed, so that the comparison leaves its start out. Prints one JSON object;
the processor time of each side is in it, which a busy machine changes less than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"

DETECT = """
import sys, time
from distildire import Detector
detector = Detector(sys.argv[1])
files = sys.argv[2:]
detector.predict(files[:8])
print("ready", flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    verdicts = detector.predict(files)
    assert all(verdict.error is None for verdict in verdicts)
    print(time.perf_counter() - started, flush=True)
"""


def make_files(folder: Path, count: int) -> list[Path]:
    """`count` different JPEGs of 500 x 375 pixels, of quality 80 to 95."""
    pictures = [Image.open(p).convert("RGB") for p in sorted(EXAMPLES.glob("*_*.*g"))]
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        picture = pictures[i % len(pictures)]
        width = int(rng.integers(picture.width * 2 // 3, picture.width + 1))
        height = min(picture.height, width * 3 // 4)
        left = int(rng.integers(0, picture.width - width + 1))
        top = int(rng.integers(0, picture.height - height + 1))
        cut = picture.crop((left, top, left + width, top + height)).resize((500, 375))
        paths.append(folder / f"{i:04d}.jpg")
        cut.save(paths[-1], quality=int(rng.integers(80, 96)))
    return paths


def cpu_seconds(pid: int) -> float:
    """Processor time of a process; it tells the work apart from a busy machine's waiting."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def detecting(model: str, files: Sequence[Path]) -> Iterator[subprocess.Popen[str]]:
    """A process that scores all files whenever it gets a line, and answers with the seconds."""
    command = [sys.executable, "-c", DETECT, model, *map(str, files)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def time_detect(process: subprocess.Popen[str]) -> float:
    """Seconds for all files."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@contextmanager
def serving(model: str, *options: str) -> Iterator[tuple[int, tuple[str, int]]]:
    """`distildire serve` on a free port; gives its process and address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "distildire", "serve", "--port", str(port), "--model", model]
    command += options
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid, ("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(30)


def request_of(path: Path, *, multipart: bool) -> bytes:
    """The whole request, as bytes, so that the clients cost little beside the service."""
    body, kind = path.read_bytes(), "image/jpeg"
    if multipart:
        kind = "multipart/form-data; boundary=distildire-benchmark"
        head = (
            "--distildire-benchmark\r\nContent-Disposition: form-data; "
            f'name="file"; filename="{path.name}"\r\nContent-Type: image/jpeg\r\n\r\n'
        )
        body = head.encode() + body + b"\r\n--distildire-benchmark--\r\n"
    head = (
        "POST /v1/detect HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer(connection: socket.socket) -> dict[str, Any]:
    """Read one answer of a known length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)
    return dict(json.loads(body))


def time_served(
    address: tuple[str, int], requests: Sequence[bytes], clients: int
) -> tuple[float, list[float]]:
    """(seconds for all requests, seconds of each) with so many clients at once."""
    waiting = iter(requests)

    def client() -> list[float]:
        times = []
        with socket.create_connection(address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for request in waiting:
                started = time.perf_counter()
                connection.sendall(request)
                assert answer(connection)["results"][0]["error"] is None
                times.append(time.perf_counter() - started)
        return times

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = [future.result() for future in [pool.submit(client) for _ in range(clients)]]
    return time.perf_counter() - started, [t for each in times for t in each]


def run(model: str, clients: int, files: int, rounds: int, *, multipart: bool) -> dict[str, Any]:
    """All rounds; the figures are medians over them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), files)
        requests = [request_of(path, multipart=multipart) for path in paths]
        with detecting(model, paths) as detect, serving(model) as (server, address):
            time_served(address, requests[:50], clients)
            for _ in range(rounds):
                detect_cpu, served_cpu = cpu_seconds(detect.pid), cpu_seconds(server)
                own_cpu = time.process_time()
                before = time_detect(detect)
                seconds, times = time_served(address, requests, clients)
                after = time_detect(detect)
                detect_cpu = (cpu_seconds(detect.pid) - detect_cpu) / 2
                served_cpu = cpu_seconds(server) - served_cpu
                own_cpu = time.process_time() - own_cpu
                p50, p99 = np.percentile(times, [50, 99])
                rows.append(
                    {
                        "detect_per_second": files / ((before + after) / 2),
                        "served_per_second": files / seconds,
                        "share": (before + after) / 2 / seconds,
                        "detect_cpu_ms": 1000 * detect_cpu / files,
                        "served_cpu_ms": 1000 * served_cpu / files,
                        "clients_cpu_ms": 1000 * own_cpu / files,
                        "p50_ms": 1000 * p50,
                        "p99_ms": 1000 * p99,
                        "p99_over_p50": p99 / p50,
                    }
                )
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    medians = {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
    return {
        "clients": clients, "files": files, "rounds": rounds, "multipart": multipart,
        "cores": os.cpu_count(), "load": os.getloadavg()[0], **medians,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--multipart", action="store_true")
    print(json.dumps(run(**vars(parser.parse_args())), indent=1))
