"""What a training run writes of itself: JSON lines and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distildire.io.writing import write_text

if TYPE_CHECKING:
    from accelerate import Accelerator

Log = Callable[[dict[str, Any]], None]
"""Called with each row."""


class RunLog:
    """JSON lines and TensorBoard, side by side.

    `resumed` is the step that the run goes on from: rows of later steps, which will come
    again, are dropped. `history` has all rows of the run, those of before too.
    """

    def __init__(self, out: Path, report: Log | None, resumed: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.history = [] if resumed is None else _drop_later(out / "metrics.jsonl", resumed)
        self.file = (out / "metrics.jsonl").open("a")
        purge = None if resumed is None else resumed + 1
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=purge)
        self.report = report

    def __call__(self, row: dict[str, Any]) -> None:
        """Write one row; `step` is its place."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        self.history.append(row)
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name, value, row["step"])
        self.board.flush()
        if self.report is not None:
            self.report(row)

    def close(self) -> None:
        """Write what is left and end TensorBoard's thread."""
        self.file.close()
        self.board.close()


def _drop_later(path: Path, step: int) -> list[dict[str, Any]]:
    """Leave the whole rows up to `step`, and return them."""
    rows = path.read_text().splitlines(keepends=True) if path.is_file() else []
    # A power cut leaves half a row, which is the last one.
    kept = [row for row in rows if row.endswith("}\n") and json.loads(row)["step"] <= step]
    write_text(path, "".join(kept))
    return [json.loads(row) for row in kept]


class Means:
    """Means of the losses since the last row."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        """The losses of one step, by name."""
        for name, value in losses.items():
            self._values.setdefault(name, []).append(value.detach())

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over all processes, each of which saw its own part of the batches."""
        values, self._values = self._values, {}
        return {
            name: float(accelerator.reduce(torch.stack(steps).mean(), "mean"))
            for name, steps in values.items()
        }
