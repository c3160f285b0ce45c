"""The training loop, top to bottom."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from distildire.data.manifest import ManifestError, fingerprint, read_manifest
from distildire.data.stream import TrainingStream, sampling_weights
from distildire.distill.checkpoint import build_student, restore, save
from distildire.distill.config import OptimConfig, TeacherConfig, TrainConfig
from distildire.distill.loss import (
    Projection,
    UncertaintyWeights,
    consistency_loss,
    distillation_loss,
    logit_kl,
)
from distildire.distill.probe import fit_head
from distildire.distill.student import Student
from distildire.distill.symptoms import symptoms
from distildire.distill.teacher import DetectorTeacher, build_teacher
from distildire.distill.validation import score_table, validation_summary
from distildire.distill.vit import VitBackbone
from distildire.io.config import to_dict
from distildire.io.writing import whole_file, write_json
from distildire.noise import load_noise_source
from distildire.noise.schedule import to_unit

if TYPE_CHECKING:
    import pandas as pd
    from accelerate import Accelerator

    from distildire.data.cache import DireReader
    from distildire.data.stream import DireMaps

log = logging.getLogger(__name__)
Log = Callable[[dict[str, Any]], None]


def train(
    config: TrainConfig, out: Path, *, resume: bool = False, report: Log | None = None
) -> Path:
    """Train a student and return the path of the best checkpoint, `out`/best.pt.

    Writes `config.json`, `metrics.jsonl` (one object a line), TensorBoard events,
    `checkpoint.pt` (everything that `resume` needs), `best.pt` (the weights chosen by
    `validation_summary`) and `val_scores.csv` (the best checkpoint's logits).

    Raises:
        ValueError: nothing to resume, or a resumed run with another config.
    """
    from accelerate import Accelerator
    from accelerate.utils import broadcast_object_list, set_seed

    # Data ---------------------------------------------------------------------------------
    optim = config.optim
    set_seed(optim.seed)
    table, val = read_split(config)
    weights = sampling_weights(
        table, power=config.data.power, max_share=config.data.max_share,
        pair_weight=config.data.pair_weight,
    )  # fmt: skip

    # Networks -----------------------------------------------------------------------------
    accelerator = Accelerator(mixed_precision=optim.precision)
    device = accelerator.device
    student = build_student(config)
    teacher, projection = None, None
    if config.teacher.backbone or config.teacher.checkpoint:
        spec = config.teacher
        teacher = build_teacher(
            spec.backbone, stage=spec.stage, pretrained=spec.pretrained, checkpoint=spec.checkpoint
        )
        teacher = teacher.eval().requires_grad_(False).to(device)
        projection = Projection(student.channels, teacher.channels)
    learner = Learner(student, projection, config.teacher, optim)
    learner = learner.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    dire_maps = dire_reader(config)
    # A student of DIRE reads its maps from the cache, one of images needs none: no noise
    # network in the loop.
    sees_dire = config.student.inputs == "dire"
    sees_noise = config.student.inputs in {"both", "noise"}
    source = load_noise_source(config.noise, device=device) if sees_noise else None

    # Head ---------------------------------------------------------------------------------
    if optim.probe_crops and not resume:
        with accelerator.autocast():
            fit_head_first(student, source, table, weights, config, dire_maps, report)

    # Optimiser ----------------------------------------------------------------------------
    optimizer = torch.optim.AdamW(parameter_groups(learner, optim), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: learning_rate(s, config))
    learner, optimizer = accelerator.prepare(learner, optimizer)
    average = moving_average(accelerator.unwrap_model(learner).student, optim.ema)

    # Resume -------------------------------------------------------------------------------
    state: dict[str, Any] = {"step": 0, "best": -1.0, "stale": 0}
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    parts = {"learner": accelerator.unwrap_model(learner), "average": average,
             "optimizer": optimizer, "schedule": schedule}  # fmt: skip
    if resume:
        if not checkpoint.is_file():
            raise ValueError(f"{checkpoint}: nothing to resume")
        state = restore(checkpoint, parts, config)
    elif accelerator.is_main_process:
        write_json(out / "config.json", to_dict(config), indent=2)
        (out / "metrics.jsonl").write_text("")

    stream = TrainingStream(
        table, weights, config.preprocessing.crop, config.augment,
        length=optim.steps * optim.batch * accelerator.num_processes,
        start=state["step"] * optim.batch * accelerator.num_processes,
        seed=optim.seed, dire=dire_maps, clean=config.clean if optim.consistency else None,
    )  # fmt: skip
    loader = accelerator.prepare(
        DataLoader(stream, optim.batch, num_workers=optim.workers, drop_last=True)
    )
    writer = Metrics(out, report) if accelerator.is_main_process else None

    def check() -> None:
        with accelerator.autocast():
            validate(average.module, source, val, config, state, out, writer, dire_maps)

    if optim.probe_crops and not resume and accelerator.is_main_process:
        check()

    # Train --------------------------------------------------------------------------------
    started, since = time.monotonic(), state["step"]
    sums: dict[str, list[Tensor]] = {}
    history: list[dict[str, float]] = []
    for step, (crop, label, *dire) in enumerate(loader, start=state["step"] + 1):
        learner.train()
        if optim.freeze_norm:
            freeze_norm(learner)
        if optim.consistency:
            # Clean views first, then their degraded twins.
            crop, label = crop.transpose(0, 1).flatten(0, 1), label.repeat(2)
        x0 = unit_planes(crop)
        with torch.no_grad(), accelerator.autocast():
            dire_map = unit_planes(dire[0]) if dire else None
            noise = source.eps0(x0) if source is not None else dire_map if sees_dire else x0
            target, taught = None, None
            if teacher is not None:
                seen = x0 if dire_map is None or config.teacher.input == "image" else dire_map
                if optim.consistency:
                    # What the teacher makes of the clean view is the target of both.
                    seen = x0.chunk(2)[0].repeat(2, 1, 1, 1)
                if isinstance(teacher, DetectorTeacher):
                    target, taught = teacher.teach(seen)
                else:
                    target = teacher(seen)
        smooth = label * (1 - optim.label_smoothing) + optim.label_smoothing / 2
        with accelerator.autocast():
            losses = learner(x0, noise, smooth, target, taught)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(losses["loss"])
        accelerator.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(accelerator.unwrap_model(learner).student)
        for name, value in losses.items():
            sums.setdefault(name, []).append(value.detach())

        # Report and validate --------------------------------------------------------------
        if step % optim.report_every == 0 or step == optim.steps:
            # Every process saw its own part of the batches.
            row = {
                name: float(accelerator.reduce(torch.stack(values).mean(), "mean"))
                for name, values in sums.items()
            }
            history.append(row)
            seconds = (time.monotonic() - started) / (step - since)
            if writer is not None:
                writer({"step": step, **row, "seconds_a_step": round(seconds, 3)})
            sums = {}
        if step % config.validation.every == 0 or step == optim.steps:
            state["step"] = step
            if accelerator.is_main_process:
                check()
                save(checkpoint, {name: part.state_dict() for name, part in parts.items()},
                     config, **state)  # fmt: skip
            # Only the main process validates; all must agree on when to stop.
            state = broadcast_object_list([state])[0]
            patience = config.validation.patience
            if patience and state["stale"] >= patience:
                log.info("stopped at step %d: no better score in %d validations", step, patience)
                break
    if writer is not None:
        for symptom in symptoms(history):
            log.warning("%s", symptom)
        writer.close()

    # End ----------------------------------------------------------------------------------
    learner, loader = accelerator.unwrap_model(learner), None
    end(accelerator)
    return out / "best.pt"


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


def fit_head_first(
    student: Student, source: Any, table: pd.DataFrame, weights: NDArray[np.float64],
    config: TrainConfig, dire_maps: DireMaps | None, report: Log | None,
) -> None:  # fmt: skip
    """Fit the head on `optim.probe_crops` crops while the rest stays as it is."""
    optim, device = config.optim, next(student.parameters()).device
    stream = TrainingStream(
        table, weights, config.preprocessing.crop, config.augment,
        length=optim.probe_crops, seed=optim.seed + 1, dire=dire_maps,
    )  # fmt: skip

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for crop, label, *dire in DataLoader(stream, 32, num_workers=optim.workers):
            x0 = unit_planes(crop.to(device))
            dire_map = unit_planes(dire[0].to(device)) if dire else x0
            noise = source.eps0(x0) if source is not None else dire_map
            yield x0, noise, label

    def progress(seen: int) -> None:
        if report is not None and seen % (32 * 50) == 0:
            report({"step": 0, "probe_crops": seen})

    bce = fit_head(
        student, batches(), l2=optim.probe_l2, epochs=optim.probe_epochs,
        weight_decay=optim.weight_decay, progress=progress,
    )  # fmt: skip
    if report is not None:
        report({"step": 0, "probe_bce": bce})


class Learner(nn.Module):
    """Student, projection and loss as one module, so that a parallel wrapper sees one forward."""

    def __init__(
        self, student: Student, projection: Projection | None, teacher: TeacherConfig,
        optim: OptimConfig,
    ) -> None:  # fmt: skip
        super().__init__()
        self.student, self.projection = student, projection
        self.teacher, self.optim = teacher, optim
        self.balance = UncertaintyWeights() if teacher.adaptive and projection else None

    def forward(
        self, x0: Tensor, eps0: Tensor, labels: Tensor, target: Tensor | None,
        taught: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Losses by name; x0, eps0 [B, 3, H, W], labels [B].

        `target` is the teacher's map, `taught` its logits [B].
        """
        maps = self.student.forward_maps(x0, eps0)
        logits, feature_map = self.student.classify(maps), maps[-1]
        if self.projection is not None and target is not None:
            feature_map, target = self.projection(feature_map, target).float(), target.float()
        losses = distillation_loss(
            logits.float(), labels, feature_map, target, lambda_=self.teacher.weight,
            pos_weight=self.optim.pos_weight, imitation=self.teacher.imitation,
        )  # fmt: skip
        if self.balance is not None:
            losses["loss"] = self.balance(losses["bce"], losses["imitation"])
        if taught is not None:
            losses["logit_kl"] = logit_kl(logits.float(), taught.float())
            losses["loss"] = losses["loss"] + self.teacher.logits * losses["logit_kl"]
        if self.optim.consistency:
            losses["consistency"] = consistency_loss(logits.float())
            losses["loss"] = losses["loss"] + self.optim.consistency * losses["consistency"]
        return losses


class Metrics:
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


def read_split(config: TrainConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and validation rows; a repository of a validation source is held out whole."""
    import pandas as pd

    table = pd.concat([read_manifest(m) for m in config.data.manifests], ignore_index=True)
    if config.data.val_split:
        wanted = {"training": config.data.split, "validation": config.data.val_split}
        parts = [table[table["split"] == split] for split in wanted.values()]
        for name, part in zip(wanted, parts, strict=True):
            if part["label"].nunique() < 2:
                raise ManifestError(f"the {name} rows (split {wanted[name]}) hold one class only")
        if shared := set(parts[0]["repository"]) & set(parts[1]["repository"]):
            raise ManifestError(f"repositories on both sides: {', '.join(sorted(shared)[:5])}")
        return parts[0].reset_index(drop=True), parts[1].reset_index(drop=True)
    if config.data.split:
        table = table[table["split"] == config.data.split]
    unknown = set(config.data.val_sources) - set(table["source"])
    if unknown:
        raise ManifestError(f"val_sources not in the manifests: {', '.join(sorted(unknown))}")
    held_out = table["source"].isin(config.data.val_sources)
    if "repository" in table:
        named = table["repository"].fillna("") != ""
        held_out |= named & table["repository"].isin(table["repository"][held_out & named])
    for name, part in (("training", table[~held_out]), ("validation", table[held_out])):
        if part["label"].nunique() < 2:
            raise ManifestError(f"the {name} rows hold one class only: choose other val_sources")
    return table[~held_out].reset_index(drop=True), table[held_out].reset_index(drop=True)


def parameter_groups(learner: Learner, optim: OptimConfig) -> list[dict[str, Any]]:
    """Groups for AdamW: the backbone's rate falls from block to block towards the input.

    Vectors (biases, norms) have no weight decay. With `body_lr: 0` the backbone is frozen.
    """
    backbone = learner.student.backbone
    deep = backbone.depth_of if isinstance(backbone, VitBackbone) else None
    rates: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in learner.named_parameters():
        rate = optim.lr
        inside = name.removeprefix("student.backbone.")
        if inside != name:
            rate = optim.lr if optim.body_lr < 0 else optim.body_lr
            if deep is not None:
                rate *= optim.layer_decay ** (backbone.stage - deep(inside))
            if rate == 0:
                parameter.requires_grad_(False)
                continue
        decay = optim.weight_decay if parameter.ndim > 1 else 0.0
        rates.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in rates.items()
    ]


def unit_planes(rgb: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in [-1, 1], channels last."""
    return to_unit(rgb).contiguous(memory_format=torch.channels_last)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Factor on the peak rate at `step`: linear warm-up, then a cosine to zero."""
    optim = config.optim
    if step < optim.warmup:
        return (step + 1) / optim.warmup
    total = max(1, optim.steps - optim.warmup)
    return 0.5 * (1.0 + float(np.cos(np.pi * min(1.0, (step - optim.warmup) / total))))


def moving_average(student: Student, decay: float) -> torch.optim.swa_utils.AveragedModel:
    """Exponential moving average of weights and batch statistics, warmed up."""

    def update(old: Sequence[Tensor], new: Sequence[Tensor], count: Tensor | int) -> None:
        # The decay grows with the number of updates, so that the start is forgotten.
        rate = min(decay, (1 + float(count)) / (10 + float(count)))
        for a, b in zip(old, new, strict=True):
            if a.is_floating_point():
                a.lerp_(b, 1.0 - rate)
            else:
                a.copy_(b)

    return torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.no_grad()(update), use_buffers=True
    )


def freeze_norm(learner: nn.Module) -> None:
    """Batch normalisation by the stored statistics instead of the batch's."""
    for module in learner.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def validate(
    student: nn.Module, source: Any, val: pd.DataFrame, config: TrainConfig,
    state: dict[str, Any], out: Path, writer: Metrics | None, dire: DireMaps | None = None,
) -> None:  # fmt: skip
    """Score the validation sources and keep the student if it is the best so far."""
    student.eval()
    device = next(student.parameters()).device

    def score(crops: Tensor) -> Tensor:
        x0 = unit_planes(crops.to(device))
        logits: Tensor = student(x0, x0 if source is None else source.eps0(x0))
        return logits.float().cpu()

    if config.validation.limit:
        val = val.groupby(["source", "label"]).head(config.validation.limit)
    logits = score_table(
        score, val, config.preprocessing, workers=config.optim.workers,
        dire=dire if config.student.inputs == "dire" else None,
    )  # fmt: skip
    summary = validation_summary(val, logits)
    if writer is not None:
        writer({"step": state["step"], **{f"val_{k}": v for k, v in summary.items()}})
    if summary["choice"] > state["best"]:
        state["best"], state["stale"] = summary["choice"], 0
        save(out / "best.pt", {"student": student.state_dict()}, config,
             step=state["step"], validation=summary)  # fmt: skip
        with whole_file(out / "val_scores.csv") as file:
            val.assign(logit=logits).to_csv(file, index=False)
    else:
        state["stale"] += 1


def dire_reader(config: TrainConfig) -> DireReader | None:
    """Reads the cached DIRE map of a picture, where the teacher or the student wants it."""
    teacher = bool(config.teacher.backbone) and config.teacher.input == "dire"
    if not teacher and config.student.inputs != "dire":
        return None
    if not config.data.dire_cache:
        who = "teacher.input" if teacher else "student.inputs"
        raise ValueError(f"{who} is dire: give data.dire_cache (distildire noise --dire)")
    from distildire.data.cache import open_dire

    return open_dire(Path(config.data.dire_cache))


def describe_data(config: TrainConfig) -> dict[str, Any]:
    """What the model card tells of the data: counts, sources and the fingerprint."""
    table, val = read_split(config)
    return {
        "train_images": len(table),
        "train_sources": sorted(table["source"].unique()),
        "train_fingerprint": fingerprint(table),
        "val_images": len(val),
        "val_sources": sorted(val["source"].unique()),
        "val_fingerprint": fingerprint(val),
    }
