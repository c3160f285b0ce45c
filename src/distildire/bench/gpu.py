"""The table of a GPU: every method in float32 and bfloat16 over batch sizes, within a limit.

One process measures, so that the UNet is made once; what it says is written at once, so that a
run that is stopped leaves what was measured until then.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from distildire.bench.report import claims, save
from distildire.bench.run import MethodSpec, computer, jpeg_500, own_environment
from distildire.io.progress import StageDoneOf
from distildire.io.writing import write_json

LIMIT = 450.0
"""Seconds; all figures take about a minute on a large GPU."""

GRACE = 3.0
"""Seconds of the limit kept for the report."""

BATCHES = (1, 4, 16, 32)
SMALL_BATCHES = (1, 16, 64, 256)


def _row(name: str, title: str, batches: tuple[int, ...], *, cpu: bool = False) -> MethodSpec:
    factory = f"distildire.bench.batched:{name.replace('-', '_')}"
    return MethodSpec(name, title, factory, batches, cpu)


METHODS = (
    _row("dire", "DIRE (ADM 20 + 20, ResNet-50), float32", BATCHES),
    _row("distildire", "DistilDIRE (ADM once, ResNet-50), float32", BATCHES),
    _row("dire-bf16", "DIRE, bfloat16", BATCHES),
    _row("distildire-bf16", "DistilDIRE, bfloat16", BATCHES),
    _row("nano", "nano (bundled), ONNX Runtime on CUDA", SMALL_BATCHES),
    _row("nano-torch", "nano's networks in torch, float32", SMALL_BATCHES),
    _row("nano-torch-bf16", "nano's networks in torch, bfloat16", SMALL_BATCHES),
    _row("nano-cpu", "nano (bundled), ONNX Runtime on the CPU", SMALL_BATCHES[:3], cpu=True),
    _row("base", "base, ONNX Runtime on CUDA", SMALL_BATCHES),
)

UNKNOWN: dict[str, Any] = dict.fromkeys((
    "params", "flops", "passes", "seconds_unet", "seconds_total", "seconds_cold", "best_batch",
    "seconds_best_batch", "peak_rss_bytes", "matmul_peak_share",
))  # fmt: skip
"""What a row says of what was not measured."""


def gpu_works() -> bool:
    """Whether torch is here and finds a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def bench_gpu(
    out: Path,
    *,
    limit: float = LIMIT,
    methods: Sequence[MethodSpec] = METHODS,
    picture: bytes | None = None,
    device: str = "cuda",
    progress: StageDoneOf | None = None,
) -> dict[str, Any]:
    """Measure `methods` and write bench.json, bench.md and bench.png into the folder `out`.

    A method that can't be measured has a row whose note says "not measured" and why.

    Args:
        out: made if missing; bench.json is there from the first figure on.
        limit: seconds for all of it; the measuring process is ended then.
        methods: rows of the table, in the order in which they are measured.
        picture: bytes of the file that is judged; by default a JPEG of 500 x 375.
        device: "cuda", or "cpu" to try the table where there is no GPU.
        progress: hears of each figure.
    """
    deadline = time.time() + limit - GRACE
    out.mkdir(parents=True, exist_ok=True)
    table = _Table(methods, device)
    write_json(out / "bench.json", table.result(), indent=2)
    try:
        with closing(_answers(methods, picture or jpeg_500(), device, deadline)) as answers:
            for answer in answers:
                name = table.hear(answer)
                write_json(out / "bench.json", table.result(), indent=2)
                if name and progress is not None:
                    progress(name, table.heard, table.expected)
    except TimeoutError:
        table.missing = f"the limit of {limit:g} seconds was reached first"
    except ChildProcessError as error:
        table.missing = str(error)
    result = table.result()
    save(result, out)
    return result


def _answers(
    methods: Sequence[MethodSpec], picture: bytes, device: str, deadline: float
) -> Generator[dict[str, Any], None, None]:
    """What a measuring process says, line by line.

    Raises:
        TimeoutError: it was at work at `deadline` (seconds since the epoch), and was ended.
        ChildProcessError: it ended with an error.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file, question = Path(scratch) / "picture.jpg", Path(scratch) / "request.json"
        file.write_bytes(picture)
        asked = [
            {"name": m.name, "factory": m.factory, "batches": m.batches, "cpu": m.cpu}
            for m in methods
        ]
        write_json(
            question,
            {"device": device, "methods": asked, "picture": str(file), "deadline": deadline},
        )
        errors = Path(scratch) / "stderr"
        with errors.open("w") as stderr:
            worker = subprocess.Popen(
                [sys.executable, "-m", "distildire.bench.sweep", str(question)],
                env=own_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=stderr, text=True,
            )  # fmt: skip
        ended = threading.Event()

        def end() -> None:
            ended.set()
            worker.kill()

        timer = threading.Timer(deadline - time.time(), end)
        timer.start()
        assert worker.stdout is not None
        try:
            yield from map(json.loads, worker.stdout)
            code = worker.wait()
        finally:
            timer.cancel()
            worker.kill()
            worker.stdout.close()
            worker.wait()
        words = [line for line in errors.read_text().splitlines() if line.strip()]
    if ended.is_set():
        raise TimeoutError
    if code:
        last = words[-1] if words else "no message"
        raise ChildProcessError(f"the measuring process ended with {code}: {last}")


class _Table:
    """What is known so far."""

    def __init__(self, methods: Sequence[MethodSpec], device: str) -> None:
        self.methods, self.device = methods, device
        self.about: dict[str, Any] = computer()
        self.rows: dict[str, dict[str, Any]] = {}
        self.missing = "its turn has not come"
        self.heard, self.expected = 0, sum(len(method.batches) for method in methods)

    def hear(self, answer: dict[str, Any]) -> str | None:
        """Take in one line of the measuring process; the name of the row that it is about."""
        if "machine" in answer:
            self.about |= answer["machine"]
        elif "missing" in answer:
            self.missing = answer["missing"]
        else:
            name: str = answer["row"]["method"]
            self.rows[name] = answer["row"]
            self.heard = sum(len(row["seconds_by_batch"]) for row in self.rows.values())
            return name
        return None

    def result(self) -> dict[str, Any]:
        """What goes into bench.json."""
        rows = [self._row(method) for method in self.methods]
        return {
            "machine": self.about, "quick": False, "device": self.device,
            "rows": rows, "claims": claims(rows),
        }  # fmt: skip

    def _row(self, method: MethodSpec) -> dict[str, Any]:
        note = f"not measured: {self.missing}"
        known = self.rows.get(method.name, {"note": note, "seconds_by_batch": {}})
        row = {**UNKNOWN, **known, "method": method.name, "title": method.title}
        peak = self.about.get(
            "matmul_flops_per_second_bf16" if "bf16" in method.name else "matmul_flops_per_second"
        )
        if peak and row["flops"] and row["seconds_best_batch"] and not method.cpu:
            row["matmul_peak_share"] = row["flops"] / row["seconds_best_batch"] / peak
        return row
