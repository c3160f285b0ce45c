"""What decoding in processes of their own costs: `score` and `serve`, with and without, in turns.

    python benchmarks/isolation.py [--files 300] [--rounds 3] [--clients 8]

The files are those of benchmarks/serving.py: JPEGs of 500 x 375 made from examples/. Prints one
JSON object, medians over rounds; the processor time is that of a run with its decoding processes,
which a busy machine changes less than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serving import cpu_seconds, make_files, request_of, serving, time_served

from distildire.scale.score import score


def time_score(model: str, folder: Path, *, isolate: bool) -> tuple[float, float]:
    """(seconds from the first file to the last row, processor seconds of all)."""
    with tempfile.TemporaryDirectory() as out:
        before = _cpu()
        report = score(folder, out, model=model, isolate=isolate)
        assert not report.errors
        return report.seconds, _cpu() - before


def _cpu() -> float:
    """Of this process and those that it has ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def children_of(process: int) -> list[int]:
    """The processes that another has started."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(file.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == process:
            found.append(int(file.parent.name))
    return found


def time_serve(
    process: int, address: tuple[str, int], requests: Sequence[bytes], clients: int
) -> tuple[float, float]:
    """(seconds for all requests, processor seconds of the service and its decoders)."""

    def cpu() -> float:
        return sum(map(cpu_seconds, (process, *children_of(process))))

    before = cpu()
    return time_served(address, requests, clients)[0], cpu() - before


def run(model: str, files: int, rounds: int, clients: int) -> dict[str, object]:
    """Medians of all four."""
    found: dict[str, list[tuple[float, float]]] = {}

    def measure(name: str, call: Callable[[], tuple[float, float]]) -> None:
        found.setdefault(name, []).append(call())
        seconds, cpu = found[name][-1]
        words = f"{files / seconds:.1f} a second, {1000 * cpu / files:.1f} ms each"
        print(f"{time.strftime('%H:%M:%S')} {name}: {words}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = [request_of(path, multipart=False) for path in make_files(folder, files)]
        with (
            serving(model, "--no-isolate") as (plain, here),
            serving(model, "--isolate") as (isolated, there),
        ):
            for address in (here, there):
                time_served(address, requests[:50], clients)
            time_score(model, folder, isolate=False)
            for _ in range(rounds):
                measure("score", lambda: time_score(model, folder, isolate=False))
                measure("score --isolate", lambda: time_score(model, folder, isolate=True))
                measure("serve --no-isolate", lambda: time_serve(plain, here, requests, clients))
                measure("serve", lambda: time_serve(isolated, there, requests, clients))
    return {
        "files": files, "rounds": rounds, "clients": clients, "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        **{
            name: {
                "per_second": round(files / statistics.median(s for s, _ in pairs), 2),
                "cpu_ms": round(1000 * statistics.median(c for _, c in pairs) / files, 2),
            }
            for name, pairs in found.items()
        },
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    print(json.dumps(run(**vars(parser.parse_args())), indent=1))
