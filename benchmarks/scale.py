"""Rates of `score`: a worker and two, loose files, tars, Parquet, OpenVINO, Ray, the bare network.

python benchmarks/scale.py [--pictures 600] [--rounds 3] [--ray] [--openvino] --out scale.json
PYTHONPATH=tests/scale python benchmarks/scale.py --ray-pictures 5000 --out ray.json

Each run is a process of its own; the runs take turns, and the median of the rounds counts. Beside
the seconds on the clock stand the core-seconds, which other work on the machine stretches less.
The second form takes Ray beside two workers on many pictures, once: on this machine, and on two
nodes made of it, network namespaces of a core each (which needs root).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from distildire.bench.run import jpeg_500

RUNS = {
    "one worker": ("files", [0]),
    "two workers": ("files", [0, 1]),
    "tar": ("pictures.tar", [0, 1]),
    "parquet": ("pictures.parquet", [0, 1]),
    "bare loop": ("files", [0, 1]),
}
"""Source and cores; the bare loop decodes and scores in two processes, and writes nothing."""


def make(folder: Path, count: int) -> None:
    """The same pictures as loose files, in a tar, and in Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "files").mkdir()
    data = {f"{n:06d}.jpg": jpeg_500(n) for n in range(count)}
    for name, content in data.items():
        (folder / "files" / name).write_bytes(content)
    with tarfile.open(folder / "pictures.tar", "w") as tar:
        for name in data:
            tar.add(folder / "files" / name, name)
    table = pa.table({"path": list(data), "bytes": list(data.values())})
    pq.write_table(table, folder / "pictures.parquet", row_group_size=200)


def one(run: str, source: str) -> dict[str, float]:
    """In a process of its own: pictures, seconds, core-seconds."""
    if run == "bare loop":
        return bare_loop(sorted(Path(source).iterdir()))
    from distildire.scale.score import score

    before = cpu_seconds()
    with tempfile.TemporaryDirectory() as out:
        report = score(
            source, out, engine="ray" if run == "ray" else "local",
            device="openvino" if run == "openvino" else "cpu",
        )  # fmt: skip
    return {"pictures": report.scored, "seconds": report.seconds, "cpu": cpu_seconds() - before}


def ray(count: int) -> dict[str, dict[str, float]]:
    """Two workers, Ray on this machine and Ray on two nodes made of it, on the same pictures."""
    from two_nodes import TwoNodes

    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for n in range(count):
            (Path(scratch) / f"{n:06d}.jpg").write_bytes(jpeg_500(n))
        command = [sys.executable, __file__, "--one"]
        for run in ("two workers", "ray"):
            said = subprocess.run([*command, run, scratch], stdout=subprocess.PIPE, check=True)
            found[run] = last_line(said.stdout)
        with TwoNodes() as nodes:
            said_there, _ = nodes.head(*command, "ray", scratch).communicate()
        found["ray, two nodes"] = last_line(said_there)
    return found


def last_line(said: bytes) -> dict[str, float]:
    """What a process printed last: the figures of `one`."""
    lines = [line for line in said.decode().splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1]))


def bare_loop(files: list[Path]) -> dict[str, float]:
    """Half of the files in each of two processes."""
    code = (
        "import sys, time\nfrom distildire import Detector\n"
        "detector = Detector(threads=1)\nbegan, cpu = time.monotonic(), time.process_time()\n"
        "for line in sys.stdin:\n    loaded = detector.load(line.strip())\n"
        "    detector.judge([loaded], [0.01])\n"
        "print(began, time.monotonic(), time.process_time() - cpu)\n"
    )
    halves = [files[0::2], files[1::2]]
    workers = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for _ in halves
    ]  # fmt: skip
    for worker, half in zip(workers, halves, strict=True):
        assert worker.stdin is not None
        worker.stdin.write("\n".join(map(str, half)))
        worker.stdin.close()
    said = [[float(x) for x in w.stdout.read().split()] for w in workers if w.stdout]
    for worker in workers:
        worker.wait()
    seconds = max(end for _, end, _ in said) - min(start for start, _, _ in said)
    return {"pictures": len(files), "seconds": seconds, "cpu": sum(cpu for *_, cpu in said)}


def cpu_seconds() -> float:
    """Of this process and its children so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def costs(pictures: list[bytes], model: str = "nano") -> dict[str, float]:
    """Core-seconds per picture of decoding and of the network."""
    from distildire import Detector

    detector = Detector(model, threads=1)
    for _ in range(2):  # the first time warms up
        start = time.process_time()
        loaded = [detector.load(item) for item in pictures]
        middle = time.process_time()
        for item in loaded:
            detector.judge([item], [0.01])
        end = time.process_time()
    return {
        "decode": (middle - start) / len(pictures),
        "network": (end - middle) / len(pictures),
    }


def driver_costs(rows: int = 100_000) -> dict[str, float]:
    """Core-seconds and bytes per row of the process that writes the parts."""
    from distildire import Detector
    from distildire.scale.folders import folder_of
    from distildire.scale.parts import PartWriter

    verdict = Detector(threads=1).predict([jpeg_500(0)])[0].to_dict()
    row = {**verdict, "size": 30_000, "mtime": 1.7e9, "etag": None}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as out:
        writer = PartWriter(folder_of(out), rows=2000, seconds=1e9)
        made = []
        for n in range(rows):
            path, sha256 = f"shard-{n // 5000:06d}.tar::{n:09d}.jpg", rng.bytes(32).hex()
            scores = {"logit": float(rng.normal()), "probability": float(rng.random())}
            made.append({**row, "path": path, "sha256": sha256, **scores})
        start = time.process_time()
        for item in made:
            writer.add(item)
        writer.flush()
        spent = time.process_time() - start
        size = sum(part.stat().st_size for part in Path(out).glob("part-*.parquet"))
    return {"driver": spent / rows, "row_bytes": size / rows}


def main() -> None:
    """All runs, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="Ray too, on this machine.")
    parser.add_argument("--openvino", action="store_true", help="OpenVINO on the CPU too.")
    parser.add_argument("--ray-pictures", type=int, help="Ray beside two workers, on so many.")
    parser.add_argument("--costs", action="store_true", help="The costs of the stages alone.")
    parser.add_argument("--one", nargs=2, metavar=("RUN", "SOURCE"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(*args.one)))
        return
    if args.ray_pictures:
        report({"load": os.getloadavg()[0], "runs": ray(args.ray_pictures)}, args.out)
        return
    stages = costs([jpeg_500(n) for n in range(100)]) | driver_costs()
    result: dict[str, Any] = {"load": os.getloadavg()[0], "costs": stages}
    asked = [name for name in ("ray", "openvino") if vars(args)[name]]
    runs = {} if args.costs else RUNS | {name: ("files", [0, 1]) for name in asked}
    found: dict[str, list[dict[str, float]]] = {run: [] for run in runs}
    with tempfile.TemporaryDirectory() as scratch:
        if runs:
            make(Path(scratch), args.pictures)
        for _ in range(args.rounds):
            for run, (source, cores) in runs.items():
                command = [sys.executable, __file__, "--one", run, str(Path(scratch) / source)]
                said = subprocess.run(
                    command, stdout=subprocess.PIPE, check=True,
                    preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
                )  # fmt: skip
                found[run].append(last_line(said.stdout))
    result["runs"] = {
        run: {
            "rate": statistics.median(m["pictures"] / m["seconds"] for m in all_of_it),
            "core_seconds": statistics.median(m["cpu"] / m["pictures"] for m in all_of_it),
            "rounds": all_of_it,
        }
        for run, all_of_it in found.items()
    }
    report(result, args.out)


def report(result: dict[str, Any], out: Path | None) -> None:
    """Print the figures, and write them."""
    text = json.dumps(result | {"load_after": os.getloadavg()[0]}, indent=1)
    if out:
        out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
