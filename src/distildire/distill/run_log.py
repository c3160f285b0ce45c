"""What a training run writes of itself: JSON lines and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

Log = Callable[[dict[str, Any]], None]
"""Called with each row."""


class RunLog:
    """JSON lines and TensorBoard, side by side."""

    def __init__(self, out: Path, report: Log | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.file = (out / "metrics.jsonl").open("a")
        self.board = SummaryWriter(str(out / "tensorboard"))
        self.report = report

    def __call__(self, row: dict[str, Any]) -> None:
        """Write one row; `step` is its place."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
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
