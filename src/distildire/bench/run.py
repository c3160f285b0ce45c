"""One run over all methods: a process each, one table, and the paper's claims against it."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distildire.io.progress import StageDoneOf


@dataclass(frozen=True)
class MethodSpec:
    """A row of the table, and where its method is opened."""

    name: str
    title: str
    factory: str
    """ "module:function", called in a process of its own: without arguments, or with `device`."""
    batches: tuple[int, ...] = ()
    """Numbers of pictures to give at once, beside one."""
    cpu: bool = False
    """Runs on the cores in a GPU's table too."""


METHODS = (
    MethodSpec("dire", "DIRE (ADM 20 + 20, ResNet-50)", "distildire.bench.methods:dire"),
    MethodSpec(
        "distildire", "DistilDIRE (ADM once, ResNet-50)", "distildire.bench.methods:distildire"
    ),
    MethodSpec("nano", "nano (bundled)", "distildire.bench.methods:nano", (4, 16, 64)),
)


class BenchError(ValueError):
    """A method that could not be measured; the message holds its last words."""


def bench(
    out: Path,
    *,
    quick: bool = False,
    methods: Sequence[MethodSpec] = METHODS,
    picture: bytes | None = None,
    device: str = "cpu",
    progress: StageDoneOf | None = None,
) -> dict[str, Any]:
    """Measure `methods` and write bench.json, bench.md and bench.png into the folder `out`.

    Args:
        out: made if missing.
        quick: extrapolate DIRE from two of its forty passes.
        methods: rows of the table, in order.
        picture: bytes of the file that is judged; by default a JPEG of 500 x 375.
        device: of the bundled model, see `Detector`; for GPUs see `bench.gpu`.
        progress: hears of each method.

    Raises:
        BenchError: a method's process failed.
        ModuleNotFoundError: a method needs a package that isn't installed.
    """
    from distildire.bench.report import claims, save

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "picture.jpg"
        file.write_bytes(picture or jpeg_500())
        about = computer()
        measured = []
        for done, spec in enumerate(methods):
            if progress is not None:
                progress(spec.name, done, len(methods))
            row = _ask(
                Path(scratch), factory=spec.factory, quick=quick, batches=list(spec.batches),
                picture=str(file), device="" if device == "cpu" else device,
            )  # fmt: skip
            measured.append((spec, row))
        about |= _ask(Path(scratch), factory="matmul")
    peak = about["matmul_flops_per_second"]
    rows = [_complete(spec, row, peak) for spec, row in measured]
    if progress is not None:
        progress("done", len(methods), len(methods))
    result = {
        "machine": about,
        "quick": quick,
        "device": device,
        "rows": rows,
        "claims": claims(rows),
    }
    save(result, out)
    return result


def _complete(spec: MethodSpec, row: dict[str, Any], peak: float) -> dict[str, Any]:
    note = row.pop("note")
    if row["extrapolated"]:
        note = f"seconds extrapolated from 2 of its {row['passes']} passes, warm; {note}"
    return {
        "method": spec.name,
        "title": spec.title,
        **row,
        "matmul_peak_share": row["flops"] / row["seconds_best_batch"] / peak,
        "note": note,
    }


def _ask(scratch: Path, **request: Any) -> dict[str, Any]:
    question, answer = scratch / "request.json", scratch / "answer.json"
    answer.unlink(missing_ok=True)
    question.write_text(json.dumps({**request, "started": time.time()}))
    done = subprocess.run(
        [sys.executable, "-m", "distildire.bench.worker", str(question), str(answer)],
        env=own_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not answer.is_file():
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        killed = " (out of memory?)" if done.returncode == -9 else ""
        raise BenchError(f"{request['factory']}: exit code {done.returncode}{killed}: {words[-1]}")
    content: dict[str, Any] = json.loads(answer.read_text())
    if missing := content.get("missing"):
        raise ModuleNotFoundError(f"{request['factory']} needs {missing}", name=missing)
    return content


def own_environment() -> dict[str, str]:
    """For a Python process that is to find what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def computer() -> dict[str, Any]:
    """Processor, cores, memory and versions."""
    import onnxruntime

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def jpeg_500(seed: int = 0) -> bytes:
    """A JPEG of 500 x 375 pixels, ImageNet's usual size: soft shapes and grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), float)
    rgb = np.clip(soft + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
