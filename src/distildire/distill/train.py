"""The training loop, top to bottom."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from distildire.data.stream import Draws, TrainingStream, Views, sampling_weights
from distildire.distill.checkpoint import restore, save
from distildire.distill.config import TrainConfig
from distildire.distill.learner import (
    Learner,
    learning_rate,
    losses_of,
    moving_average,
    parameter_groups,
)
from distildire.distill.lora import merged
from distildire.distill.loss import mixed_labels
from distildire.distill.networks import Networks, build_networks, clean_first, lesson, seen_of
from distildire.distill.probe import fit_head
from distildire.distill.run_log import Log, Means, RunLog
from distildire.distill.split import read_split
from distildire.distill.symptoms import symptoms
from distildire.distill.validation import Validation, validate
from distildire.io.config import to_dict
from distildire.io.writing import whole_file, write_json

if TYPE_CHECKING:
    import pandas as pd
    from accelerate import Accelerator

log = logging.getLogger(__name__)

_CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Standing:
    """Where a run stands; saved with `checkpoint.pt`."""

    step: int = 0
    best: float = -1.0
    """The highest `choice` of a validation."""
    stale: int = 0
    """Validations since then."""


def train(
    config: TrainConfig, out: Path, *, resume: bool = False, report: Log | None = None
) -> Path:
    """Train a student and return the path of the best checkpoint, `out`/best.pt.

    Writes `config.json`, `metrics.jsonl` (one object per line), TensorBoard events,
    `checkpoint.pt` (everything that `resume` needs), `best.pt` (the weights chosen by
    `validation_summary`) and `val_scores.csv` (the best checkpoint's logits).

    Raises:
        ValueError: nothing to resume, or a resumed run with another config; several processes
            that can't find one another; a run that diverged, whose `best.pt` stays, or one with
            no readable picture of a class to validate on.
    """
    from accelerate.utils import broadcast_object_list, set_seed

    # Data ---------------------------------------------------------------------------------
    optim, validation = config.optim, config.validation
    set_seed(optim.seed)
    table, val = read_split(config)
    weights = sampling_weights(
        table, power=config.data.power, max_share=config.data.max_share,
        pair_weight=config.data.pair_weight,
    )  # fmt: skip

    # Networks -----------------------------------------------------------------------------
    accelerator = open_accelerator(optim.precision)
    networks = build_networks(config, accelerator.device)
    learner = Learner(networks.student, networks.projection, config.teacher, optim)
    learner = learner.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit_first = optim.probe_crops and not resume
    if fit_first:
        with accelerator.autocast():
            fit_head_first(networks, table, weights, config, report)

    # Optimiser ----------------------------------------------------------------------------
    optimizer = torch.optim.AdamW(parameter_groups(learner, optim), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: learning_rate(s, config))
    learner, optimizer = accelerator.prepare(learner, optimizer)
    bare: Learner = accelerator.unwrap_model(learner)
    average = moving_average(bare.student, optim.ema)

    # Run ----------------------------------------------------------------------------------
    parts = {"learner": bare, "average": average, "optimizer": optimizer, "schedule": schedule}
    if accelerator.scaler is not None:  # of fp16
        parts["scaler"] = accelerator.scaler
    standing = begin_run(config, out, parts, resume=resume, main=accelerator.is_main_process)
    items = optim.batch * accelerator.num_processes
    # A run that had lost its patience is at its end.
    last = standing.step if 0 < validation.patience <= standing.stale else optim.steps
    draws = Draws(last * items, standing.step * items, optim.seed)
    stream = TrainingStream(table, weights, views_of(config), draws, dire=networks.dire)
    loader = accelerator.prepare(
        DataLoader(stream, optim.batch, num_workers=optim.workers, drop_last=True)
    )
    resumed = standing.step if resume else None
    writer = RunLog(out, report, resumed) if accelerator.is_main_process else None

    def validated(standing: Standing) -> Standing:
        with accelerator.autocast():
            found = validate(average.module, networks, val, config)
        if writer is not None:
            figures = {f"val_{name}": value for name, value in found.summary.items()}
            writer({"step": standing.step, **figures})
        if not found.summary["choice"] > standing.best:
            return replace(standing, stale=standing.stale + 1)
        keep_best(out, average.module, config, standing.step, found)
        return replace(standing, best=found.summary["choice"], stale=0)

    with closed_at_the_end(writer):
        if (fit_first or not optim.steps) and accelerator.is_main_process:
            standing = validated(standing)

        # Train --------------------------------------------------------------------------------
        started, since = time.monotonic(), standing.step
        means = Means()
        for step, (crop, label, *dire) in enumerate(loader, start=standing.step + 1):
            if optim.consistency:
                crop, label = clean_first(crop, label)
            # What dropout drops is a matter of the step, so that a resumed run drops the same.
            torch.manual_seed(seed_of(optim.seed, step, accelerator.process_index))
            with accelerator.autocast():
                losses = losses_of(learner, networks, crop, label, dire, config)
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(losses["loss"])
            accelerator.clip_grad_norm_(learner.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(bare.student)
            means.add(losses)

            # Report and validate --------------------------------------------------------------
            checked = step % validation.every == 0 or step == optim.steps
            if checked or step % optim.report_every == 0:  # a resumed run begins its means anew
                row = means.take(accelerator)
                seconds = (time.monotonic() - started) / (step - since)
                if writer is not None:
                    writer({"step": step, **row, "seconds_a_step": round(seconds, 3)})
            if checked:
                standing = replace(standing, step=step)
                if accelerator.is_main_process:
                    standing = validated(standing)
                    state = {name: part.state_dict() for name, part in parts.items()}
                    save(out / _CHECKPOINT, state, config, **asdict(standing))
                # Only the main process validates; all must agree on when to stop.
                standing = broadcast_object_list([standing])[0]
                if 0 < validation.patience <= standing.stale:
                    log.info("stopped at step %d: no better score in %d validations",
                             step, validation.patience)  # fmt: skip
                    break
        if writer is not None:
            for symptom in symptoms(writer.history):
                log.warning("%s", symptom)

    # End ----------------------------------------------------------------------------------
    del learner, loader
    end(accelerator)
    return out / "best.pt"


def open_accelerator(precision: str) -> Accelerator:
    """What knows the devices and the other processes of this run.

    Raises:
        ValueError: several processes that can't find one another.
    """
    from accelerate import Accelerator, InitProcessGroupKwargs

    # While one process validates the others wait, NCCL for ten minutes by default.
    patient = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[patient])
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != accelerator.num_processes:
        raise ValueError(
            f"{world} processes were started and each would train alone, over the others' files: "
            "no GPU works here (see nvidia-smi); start one process, or set ACCELERATE_USE_CPU=true"
        )
    return accelerator


def begin_run(
    config: TrainConfig, out: Path, parts: dict[str, Any], *, resume: bool, main: bool
) -> Standing:
    """Where a run in `out` stands: that of its checkpoint, which `parts` take over, or step 0.

    A run that begins takes away what an earlier one left, before its own config.json.

    Raises:
        ValueError: nothing to resume, or a run of another config.
    """
    out.mkdir(parents=True, exist_ok=True)
    if resume:
        if not (out / _CHECKPOINT).is_file():
            raise ValueError(f"{out / _CHECKPOINT}: nothing to resume")
        return Standing(**restore(out / _CHECKPOINT, parts, config))
    if main:
        for name in (_CHECKPOINT, "best.pt", "val_scores.csv"):
            (out / name).unlink(missing_ok=True)
        write_json(out / "config.json", to_dict(config), indent=2)
        (out / "metrics.jsonl").write_text("")
    return Standing()


@contextmanager
def closed_at_the_end(writer: RunLog | None) -> Iterator[None]:
    """However the block ends, the log is closed; after an error the process group is gone too.

    The other processes then fail at what they wait for, and this one ends as `end` explains.
    """
    try:
        yield
    except BaseException:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        raise
    finally:
        if writer is not None:
            writer.close()


def seed_of(*numbers: int) -> int:
    """Of what is drawn in a step, by seed, step and process: dropout, a teacher's side."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def views_of(config: TrainConfig) -> Views:
    """The views that a run trains on: with `optim.consistency` two of each piece."""
    clean = config.clean if config.optim.consistency else None
    return Views(config.preprocessing.crop, config.augment, clean)


def fit_head_first(
    networks: Networks, table: pd.DataFrame, weights: NDArray[np.float64], config: TrainConfig,
    report: Log | None,
) -> None:  # fmt: skip
    """Fit the head on `optim.probe_crops` crops while the rest stays as it is.

    Where a detector teaches its logits, the targets are `mixed_labels`.
    """
    optim, device = config.optim, next(networks.student.parameters()).device
    draws = Draws(optim.probe_crops, seed=optim.seed + 1)
    stream = TrainingStream(table, weights, views_of(config), draws, dire=networks.dire)

    @torch.no_grad()
    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for crop, label, *dire in DataLoader(stream, 32, num_workers=optim.workers):
            if optim.consistency:
                crop, label = clean_first(crop, label)
            seen = seen_of(networks, crop.to(device), [d.to(device) for d in dire])
            if config.teacher.logits:
                _, taught = lesson(networks.teacher, seen, config)
                if taught is not None:
                    label = mixed_labels(label.to(device), taught.float(), config.teacher.logits)
            yield seen.x0, seen.noise, label

    def progress(count: int) -> None:
        if report is not None and count % (32 * 10) == 0:
            report({"step": 0, "probe_crops": count, "of": optim.probe_crops})

    progress(0)
    bce = fit_head(
        networks.student, batches(), l2=optim.probe_l2, epochs=optim.probe_epochs,
        weight_decay=optim.weight_decay, progress=progress,
    )  # fmt: skip
    if report is not None:
        report({"step": 0, "probe_bce": bce})


def keep_best(
    out: Path, student: torch.nn.Module, config: TrainConfig, step: int, found: Validation
) -> None:
    """Write `best.pt`, and the scores that it was chosen by."""
    weights: dict[str, Any] = {"student": merged(student.state_dict())}
    save(out / "best.pt", weights, config, step=step, validation=found.summary)
    with whole_file(out / "val_scores.csv") as file:
        found.table.assign(logit=found.logits).to_csv(file, index=False)


def end(accelerator: Accelerator) -> None:
    """Take down the process group, once every process is through.

    Its threads, and those of the loader, must not outlive the interpreter: one that C++ finds
    at work then aborts a process whose work is done ("terminate called without an active
    exception"). The parallel wrapper and the loader hold the group, so they go first.
    """
    from accelerate.state import AcceleratorState

    several = accelerator.num_processes > 1
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    accelerator.end_training()
    if several:  # a next run in this process makes a group of its own
        AcceleratorState._reset_state(reset_partial_state=True)
