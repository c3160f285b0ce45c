"""Memory of `score` over very many rows: is it level?

    PYTHONPATH=tests python benchmarks/memory.py --model MODEL [--rows 100000] [--engine ray]
        [--width 500]

The rows are hard links to a hundred JPEGs of that width. After each hundredth of them the memory of
the run's processes is added up (proportional set sizes: what they share counts once); printed is
the median of each tenth of the rows; and the rate, with the core-seconds that decoding and the
network take of such a picture. `tests/standin.py` makes a model that costs next to nothing, where
the network's own time is not of interest:

    PYTHONPATH=tests python -c "from standin import *; make_bundle(Path('standin'))"
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from distildire.bench.run import jpeg_500
from processes import processes_of
from scale import costs

PICTURES = 100


def jpeg(n: int, width: int) -> bytes:
    """One of the pictures, 4:3."""
    if width == 500:
        return jpeg_500(n)
    buffer = io.BytesIO()
    whole = Image.open(io.BytesIO(jpeg_500(n)))
    whole.resize((width, width * 3 // 4)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make(folder: Path, rows: int, width: int) -> None:
    """Links to the same pictures, in folders of a thousand."""
    pictures = []
    for n in range(PICTURES):
        pictures.append(folder / f"{n}.jpg")
        pictures[-1].write_bytes(jpeg(n, width))
    for n in range(rows):
        place = folder / "files" / f"{n // 1000:04d}"
        if n % 1000 == 0:
            place.mkdir(parents=True)
        os.link(pictures[n % PICTURES], place / f"{n:07d}.jpg")


def megabytes(process: int) -> float:
    """Proportional set size; 0 of a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")), 0.0)


def main() -> None:
    """One run, watched."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    code = (
        "import sys\nfrom distildire.scale.score import score\n"
        "score(sys.argv[1], sys.argv[2], model=sys.argv[3], engine=sys.argv[4], progress=lambda p:"
        " print(p.scored, flush=True) if p.scored % int(sys.argv[5]) == 0 else None)\n"
    )
    by_tenth: list[list[float]] = [[] for _ in range(10)]
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), args.rows, args.width)
        command = [sys.executable, "-c", code, f"{scratch}/files", f"{scratch}/out", args.model]
        run = subprocess.Popen(
            [*command, args.engine, str(max(1, args.rows // 100))],
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert run.stdout is not None
        began = time.monotonic()
        for line in run.stdout:
            tenth = min(9, 10 * int(line) // args.rows)
            by_tenth[tenth].append(sum(map(megabytes, processes_of(run.pid))))
        seconds = time.monotonic() - began
        if run.wait():
            sys.exit(f"the run failed with {run.returncode}")
    levels = [round(statistics.median(tenth), 1) for tenth in by_tenth if tenth]
    result = {"rows": args.rows, "engine": args.engine, "model": args.model, "width": args.width,
              "seconds": round(seconds, 1), "megabytes": levels,
              "costs": costs([jpeg(n, args.width) for n in range(PICTURES)], args.model),
              "last over first": round(levels[-1] / levels[0], 4)}  # fmt: skip
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
