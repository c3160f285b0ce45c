"""Every option of a training run, with its meaning beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from distildire.data.augment import CLEAN, AugmentConfig
from distildire.distill.loss import Imitation
from distildire.distill.student import Fusion, Inputs
from distildire.io.config import refuse_under
from distildire.io.preprocessing import Preprocessing


@dataclass(frozen=True)
class DataConfig:
    """What is trained on and what chooses the checkpoint."""

    manifests: tuple[str, ...] = ()
    """Parquet or CSV manifests, or tar shards (`train-{0000..0099}.tar`), one after the other."""
    split: str = "train"
    """Rows of this split are used; an empty string: all rows, or with `val_split` those that tell
    no split. Manifests that tell no split are taken whole."""
    val_sources: tuple[str, ...] = ()
    """Sources held out for validation. Those of one repository stay together."""
    val_split: str = ""
    """Or: rows of this split are the validation rows."""
    max_share: float = 0.04
    """Largest share of a class that one source may have in the sampling."""
    power: float = 0.5
    """A source is sampled in proportion to size ** power (1: every image alike)."""
    pair_weight: float = 1.0
    """How much more sources count whose repository holds both classes."""
    dire_cache: str = ""
    """Folder made by `distildire noise --dire`, for a teacher that sees DIRE."""


@dataclass(frozen=True)
class StudentConfig:
    """The network that is trained; see `Student`."""

    backbone: str = "resnet50"
    stage: int = 4
    """Stage, or block of a transformer, after which the backbone is cut."""
    taps: tuple[int, ...] = ()
    """Blocks of a transformer whose tokens the head sees, with `wide` (none: the last two)."""
    merge_after: int = 0
    """Block of a transformer after which each 2 x 2 patches go on as their mean (0: none)."""
    inputs: Inputs = "both"
    fusion: Fusion = "concat"
    wide: bool = False
    """Let the head see the wide maps of the inverted residuals and the energies of eps0."""
    hidden: int = 0
    """Rectified units between the pooled features and the logit (0: one linear unit)."""
    pretrained: bool = False
    dropout: float = 0.0
    """Of the pooled features."""
    init: str = ""
    """What to start from: best.pt of another run, a bundle's folder, or the name of an installed
    model; several, separated by commas, for the mean of their weights. Of another depth or other
    taps, what both have is taken (`distill.start`)."""


OF_TRAINING = frozenset({"pretrained", "dropout", "init"})
"""Options of a student that its network doesn't need once it is trained."""


def network_of(student: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of `Student` among the options of a `StudentConfig`, as a mapping."""
    return {name: value for name, value in student.items() if name not in OF_TRAINING}


@dataclass(frozen=True)
class TeacherConfig:
    """The frozen network whose feature map the student imitates."""

    backbone: str = "resnet50"
    """timm name; an empty string: no distillation (but by `checkpoint`)."""
    checkpoint: str = ""
    """A detector as teacher, for its map and, with `logits`, its logits: best.pt of another run, a
    bundle's folder, or the name of an installed model."""
    turned: bool = False
    """That detector looks at each batch from a random one of eight sides."""
    logits: float = 0.0
    """Weight of the KL divergence from that teacher's logits (Hinton et al. 2015)."""
    stage: int = 4
    input: Literal["image", "dire"] = "image"
    """The paper's summary says the image, the authors' code the DIRE map."""
    lambda_: float = 1.0
    """lambda of the paper (eq. 4): weight of the imitation in `distillation_loss`."""
    adaptive: bool = False
    """Learn lambda instead (uncertainty weighting); `lambda_` is not used then."""
    imitation: Imitation = "mse"
    """Squared error of the maps, as in the paper, or KL of their softened pooled channels."""
    pretrained: bool = True


@dataclass(frozen=True)
class OptimConfig:
    """Optimisation."""

    steps: int = 2000
    batch: int = 32
    lr: float = 3e-4
    """Peak learning rate of AdamW: linear warm-up, then a cosine to zero."""
    body_lr: float = -1.0
    """The same for the backbone, that of the noise too (-1: as the rest; 0: they stay as is)."""
    layer_decay: float = 1.0
    """Factor on the backbone's rate from each transformer block to the one before."""
    frozen: int = 0
    """First blocks of a transformer that stay as they are, with the embedding before them."""
    lora: int = 0
    """Rank of what a transformer's matrices learn beside themselves (0: they learn whole)."""
    consistency: float = 0.0
    """Weight of the squared difference between the logits of a clean and of a degraded view of
    one piece (0: one view, degraded)."""
    probe_crops: int = 0
    """Crops on which the linear head is fitted before the first step (0: it starts at zero); with
    `consistency` both views of each.
    With `steps: 0` nothing else learns."""
    probe_l2: float = 0.05
    """Penalty of that fit, on weights of standardised features."""
    probe_epochs: int = 8
    """Passes over those crops where the head has a hidden layer; its penalty is `weight_decay`."""
    warmup: int = 100
    weight_decay: float = 0.01
    freeze_norm: bool = False
    """Keep the batch statistics of the pretrained student: steadier in small batches."""
    label_smoothing: float = 0.0
    """Share of each label that is split evenly between the classes (`loss.smoothed`)."""
    pos_weight: float = 1.0
    ema: float = 0.998
    """Decay of the moving average of the weights, which is what is kept (0: none)."""
    workers: int = 1
    """Processes that decode and augment."""
    report_every: int = 50
    """Steps between rows in metrics.jsonl; each validation has one too."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    seed: int = 0

    def __post_init__(self) -> None:
        refuse_under(
            self, "optim.", steps=0, batch=1, lr=0, body_lr=-1, lora=0, probe_crops=0, warmup=0,
            workers=0, report_every=1,
        )  # fmt: skip
        if self.probe_crops:  # of two or three, one class may be missing
            refuse_under(self, "optim.", probe_crops=32)


@dataclass(frozen=True)
class ValidationConfig:
    """When and how the checkpoint is chosen."""

    every: int = 500
    """Steps between validations and between checkpoints."""
    patience: int = 0
    """Validations without a better score before stopping (0: never)."""
    limit: int = 0
    """Largest number of images per source and class (0: all). Under 10, no source is large enough
    to be ranked by itself, and `worst_quarter` is the AUC of all."""

    def __post_init__(self) -> None:
        refuse_under(self, "validation.", every=1, patience=0, limit=0)


@dataclass(frozen=True)
class TrainConfig:
    """A whole run: `distildire train --config FILE`."""

    name: str = "detector"
    data: DataConfig = field(default_factory=DataConfig)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    clean: AugmentConfig = field(default_factory=lambda: CLEAN)
    """What the clean view of `optim.consistency` meets; its geometry is that of `augment`."""
    noise: str = "nano"
    """Noise source: nano, adm, or a folder (see `load_noise_source`)."""
    student: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)


def as_of_now(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of a `TrainConfig` that an earlier version wrote, under the names of this one."""
    teacher, optim = dict(tree["teacher"]), dict(tree["optim"])
    optim.pop("compile", None)
    if "weight" in teacher:
        teacher["lambda_"] = teacher.pop("weight")
    return {**tree, "teacher": teacher, "optim": optim}
