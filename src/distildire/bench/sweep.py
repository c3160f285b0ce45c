"""Measures all methods on one device in one process: a line of JSON as soon as a figure is there.

`python -m distildire.bench.sweep REQUEST.json`. Every method is measured at its first batch
before any is at its second, so that a run that is cut short has the figures that matter most.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distildire.bench.worker import median_seconds, peak_rss

if TYPE_CHECKING:
    from distildire.bench.batched import Factory, Swept

CAUTION = 1.2
"""A larger batch is tried if this many times what it should take is left of the time."""


def sweep(
    methods: list[dict[str, Any]], data: bytes, device: str, deadline: float
) -> Iterator[dict[str, Any]]:
    """Rows of the table, each again whenever it knows more.

    Args:
        methods: `name`, `factory` ("module:function", called with the device) and `batches`.
        data: bytes of the picture.
        device: as torch calls it.
        deadline: of `time.time()`; nothing is begun that would likely end after it.
    """
    tracks = [_Track(method, device) for method in methods]
    for place in range(max(len(track.batches) for track in tracks)):
        for track in tracks:
            if track.alive and place < len(track.batches):
                track.measure(data, track.batches[place], deadline)
                yield track.row
        if place == 0:
            for track in tracks:
                if track.row["seconds_by_batch"] and time.time() < deadline:
                    track.count(data)
                    yield track.row


class _Track:
    """One method on its way through the batches."""

    def __init__(self, method: dict[str, Any], device: str) -> None:
        self.batches: list[int] = method["batches"]
        self.device, self.alive = device, True
        self._factory: str = method["factory"]
        self._took = 0.0
        self._notes: list[str] = []
        self.row: dict[str, Any] = {"method": method["name"], "seconds_by_batch": {}, "note": ""}

    @cached_property
    def _method(self) -> Swept:
        """Opened when it is first asked for."""
        return _factory(self._factory)(self.device)

    def measure(self, data: bytes, size: int, deadline: float) -> None:
        """Figures of a batch of `size`; whatever happens ends up in the row's note."""
        known = self.row["seconds_by_batch"]
        likely = self._took * size / int(list(known)[-1]) if known else 0.0
        if time.time() + CAUTION * likely > deadline:
            self._end(size, "the time was up")
            return
        try:
            method = self._method
            begun = time.perf_counter()
            with _GpuMemory(self.device) as memory:
                figures = method.figures([data] * size)
            self._took = time.perf_counter() - begun
        except Exception as error:  # a missing package, weights, memory: the other rows go on
            words = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._end(size, words)
            _free(self.device)
            return
        self._keep(size, figures, memory.peak)

    def count(self, data: bytes) -> None:
        """Parameters and FLOPs, which take a while and no device."""
        try:
            self.row |= {"params": self._method.params(), "flops": self._method.flops(data)}
        except Exception as error:
            self._notes.append(f"FLOPs not counted: {error}")
        self._write_note()

    def _keep(self, size: int, figures: dict[str, Any], gpu_bytes: int | None) -> None:
        row, method = self.row, self._method
        total, unet = figures["seconds_total"], figures["seconds_unet"]
        if not row["seconds_by_batch"]:
            row |= {
                "passes": method.passes, "extrapolated": figures["extrapolated"],
                "seconds_unet": None if unet is None else unet / size,
                "seconds_total": total / size, "peak_rss_bytes": peak_rss(),
            }  # fmt: skip
            self._notes.append(method.note)
        if figures["extrapolated"]:
            row.setdefault("extrapolated_batches", []).append(size)
        row["seconds_by_batch"][str(size)] = total / size
        row.setdefault("seconds_unet_by_batch", {})[str(size)] = unet and unet / size
        row.setdefault("peak_gpu_bytes_by_batch", {})[str(size)] = gpu_bytes
        best = min(row["seconds_by_batch"], key=row["seconds_by_batch"].__getitem__)
        row |= {"best_batch": int(best), "seconds_best_batch": row["seconds_by_batch"][best]}
        self._write_note()

    def _end(self, size: int, why: str) -> None:
        self.alive = False
        which = f"batch {size} " if self.row["seconds_by_batch"] else ""
        self._notes.append(f"{which}not measured: {why}")
        self._write_note()

    def _write_note(self) -> None:
        far = self.row.get("extrapolated_batches")
        passes = f"2 of its {self.row.get('passes')} passes"
        said = [f"batches {', '.join(map(str, far))} extrapolated from {passes}"] if far else []
        self.row["note"] = "; ".join([*said, *self._notes])


class _GpuMemory:
    """The most that torch held on the device inside the block, beyond what it held before."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self.peak: int | None = None

    def __enter__(self) -> _GpuMemory:
        if self._cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            import torch

            self.peak = torch.cuda.max_memory_allocated() - self._before


def _factory(name: str) -> Factory:
    module, _, function = name.partition(":")
    found: Factory = getattr(importlib.import_module(module), function)
    return found


def _free(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


def about() -> dict[str, Any]:
    """The GPU, CUDA's version, and the fastest matrix products.

    Raises:
        RuntimeError: no GPU that works.
    """
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU that works: see nvidia-smi")
    # float32 is float32: torch would let convolutions round to ten bits.
    torch.backends.cudnn.allow_tf32 = False
    card = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {
        "torch": torch.__version__, "threads": torch.get_num_threads(),
        "gpu": card.name, "gpu_memory_bytes": card.total_memory, "cuda": torch.version.cuda,
    }  # fmt: skip
    side = 8192
    for name, dtype in (("", torch.float32), ("_bf16", torch.bfloat16)):
        a, b = torch.randn(2, side, side, device="cuda").to(dtype)

        def multiply(a: Any = a, b: Any = b) -> None:
            torch.mm(a, b)
            torch.cuda.synchronize()

        multiply()
        seconds = median_seconds(multiply, spent=0.2)
        found[f"matmul_flops_per_second{name}"] = 2.0 * side**3 / seconds
    return found


def main() -> None:
    """Answer one request on what was standard output; anything else goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    request = json.loads(Path(sys.argv[1]).read_text())
    device, methods = request["device"], request["methods"]
    if device == "cuda":
        try:
            say(machine=about())
        except Exception as error:
            say(missing=str(error))
            device, methods = "cpu", [method for method in methods if method["cpu"]]
    data = Path(request["picture"]).read_bytes()
    for row in sweep(methods, data, device, request["deadline"]) if methods else ():
        say(row=row)


if __name__ == "__main__":
    main()
