"""Measures one method in a process of its own, so that peaks of memory don't mix.

`python -m distildire.bench.worker REQUEST.json ANSWER.json`; the request names the method's
factory as "module:function".
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distildire.bench.methods import Method

SPENT_SECONDS = 3.0
"""A figure is the median of as many runs as fit into this, at least `LEAST_RUNS`."""

LEAST_RUNS = 3
"""Single runs of some seconds wander by a fifth on shared cores."""

QUICK_PASSES = 2
"""Passes from which `--quick` extrapolates."""


def measure(
    method: Method, data: bytes, *, startup: float, quick: bool, batches: Sequence[int]
) -> dict[str, Any]:
    """One row of the table.

    Args:
        method: opened already.
        data: bytes of the picture.
        startup: seconds from the start of the process until `method` was open.
        quick: time two passes of a method that has more, and multiply.
        batches: numbers of pictures given at once, beside one.
    """
    row: dict[str, Any] = {"passes": method.passes, "extrapolated": False}
    if quick and method.passes > QUICK_PASSES:
        row |= _extrapolate(method, data)
        row["seconds_cold"] = startup + row["seconds_total"]
    else:
        first = _seconds(lambda: method.verdicts([data]))
        row["seconds_cold"] = startup + first
        picture = method.read(data)
        if first > 60.0:  # a second run would only cost minutes
            row["seconds_total"] = first
            rest = _rest(method, data, picture)
            row["seconds_unet"] = first - rest
        else:
            # In turns, so that a machine that slows down slows both.
            pairs = _pairs(lambda: method.verdicts([data]), lambda: method.noise(picture))
            row["seconds_total"], row["seconds_unet"] = pairs
            if not method.sees_noise:
                row["seconds_unet"] = None
    row["peak_rss_bytes"] = peak_rss()
    by_batch = {1: row["seconds_total"]}
    for size in batches:
        files = [data] * size
        by_batch[size] = median_seconds(lambda files=files: method.verdicts(files)) / size  # type: ignore[misc]
    best = min(by_batch, key=lambda size: by_batch[size])
    row |= {
        "best_batch": best,
        "seconds_best_batch": by_batch[best],
        "seconds_by_batch": {str(size): value for size, value in by_batch.items()},
        "peak_rss_best_batch_bytes": peak_rss(),
    }
    # Last, as counting needs packages that a verdict doesn't.
    return {**row, "params": method.params(), "flops": method.flops(data)}


def _extrapolate(method: Method, data: bytes) -> dict[str, Any]:
    picture = method.read(data)
    method.first_passes(picture, 1)  # warm, as every other figure is
    one = _seconds(lambda: method.first_passes(picture, QUICK_PASSES)) / QUICK_PASSES
    unet = method.passes * one
    return {
        "seconds_unet": unet,
        "seconds_total": unet + _rest(method, data, picture),
        "extrapolated": True,
    }


def _rest(method: Method, data: bytes, picture: Any) -> float:
    """Seconds of decoding and classifying; the picture itself stands in for its noise."""
    read = median_seconds(lambda: method.read(data))
    return read + median_seconds(lambda: method.classify(picture, picture))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(
    call: Callable[[], object], *, spent: float = SPENT_SECONDS, least: int = LEAST_RUNS
) -> float:
    """Median time of a call, run until `spent` seconds are spent, at least `least` times."""
    runs = [_seconds(call)]
    while len(runs) < least or (sum(runs) < spent and len(runs) < 50):
        runs.append(_seconds(call))
    return median(runs)


def _pairs(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Medians of two calls that are timed in turns."""
    runs: list[tuple[float, float]] = []
    while len(runs) < LEAST_RUNS or (sum(map(sum, runs)) < 2 * SPENT_SECONDS and len(runs) < 50):
        runs.append((_seconds(first), _seconds(second)))
    return median(run[0] for run in runs), median(run[1] for run in runs)


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes."""
    try:
        # Counted from exec on; getrusage's figure would start from the parent's.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def matmul_peak(side: int = 2048, runs: int = 8) -> float:
    """FLOP/s of the fastest of some seconds of float32 matrix products of side x side."""
    import torch

    a, b = torch.randn(2, side, side)
    times: list[float] = []
    while len(times) < runs or (sum(times) < SPENT_SECONDS and len(times) < 500):
        times.append(_seconds(lambda: torch.mm(a, b)))
    return 2.0 * side**3 / min(times)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["factory"] == "matmul":
        import torch

        return {
            "matmul_flops_per_second": matmul_peak(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
    module, _, function = request["factory"].partition(":")
    where = {"device": request["device"]} if request.get("device") else {}
    method = getattr(importlib.import_module(module), function)(**where)
    startup = time.time() - request["started"]
    data = Path(request["picture"]).read_bytes()
    row = measure(method, data, startup=startup, quick=request["quick"], batches=request["batches"])
    return {**row, "note": method.note}


def main() -> None:
    """Answer one request; where a package is missing, with its name as `missing`."""
    try:
        answer = _answer(json.loads(Path(sys.argv[1]).read_text()))
    except ModuleNotFoundError as error:
        answer = {"missing": error.name}
    Path(sys.argv[2]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
