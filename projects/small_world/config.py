"""Every size of the small world, and the methods that are compared in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from distildire.distill.loss import Imitation
from distildire.distill.student import Fusion, Inputs


@dataclass(frozen=True)
class PicturesConfig:
    """Which photographs, and what they are for."""

    manifest: str = "data/base/manifest.csv"
    split: str = "train"
    side: int = 64
    """Pixels; the shorter side is scaled to it, then the centre is cut."""
    train: int = 400
    """Photographs that the students learn from, each with a fake made from it."""
    test: int = 400
    """Photographs held out from everything, each with a fake made from it."""
    judged: int = 150
    """Pairs of the test photographs on which methods are compared (DIRE is slow)."""
    unseen: int = 60
    """Pictures of each unseen family."""
    limit: int = 0
    """Largest number of photographs for the generators (0: all that remain)."""
    quality: int = 95
    """Of the one JPEG pass that every picture goes through, real or made."""
    seed: int = 0


@dataclass(frozen=True)
class AdmTraining:
    """The diffusion model: an ADM of this shape, trained by the DDPM objective."""

    channels: tuple[int, ...] = (32, 32, 64, 128)
    attention: tuple[bool, ...] = (False, False, False, True)
    layers: int = 1
    steps: int = 2000
    batch: int = 16
    lr: float = 4e-4
    ema: float = 0.995


@dataclass(frozen=True)
class CodecTraining:
    """A variational or vector-quantised autoencoder: an unseen family."""

    steps: int = 500
    batch: int = 16
    lr: float = 1e-3
    width: int = 48
    latent: int = 16
    """Channels of the 8-fold smaller latent."""
    codes: int = 256
    """Of the vector-quantised one."""


@dataclass(frozen=True)
class StudentTraining:
    """The one budget that every method gets."""

    backbone: str = "resnet18"
    stage: int = 3
    teacher: str = "tf_efficientnet_lite0"
    """Frozen; its ImageNet weights come from a package."""
    teacher_stage: int = 3
    teacher_pretrained: bool = True
    steps: int = 150
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.01
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = ()
    """Names from `METHODS`; none: all."""


@dataclass(frozen=True)
class WorldConfig:
    """The whole experiment: `distildire experiment small-world --config FILE --out DIR`."""

    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    adm: AdmTraining = field(default_factory=AdmTraining)
    vae: CodecTraining = field(default_factory=CodecTraining)
    vq: CodecTraining = field(default_factory=CodecTraining)
    strengths: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """Share of the noise schedule that a photograph is taken up before it is sampled back."""
    sampling_steps: int = 20
    """Of DDIM, for the fakes and for DIRE."""
    student: StudentTraining = field(default_factory=StudentTraining)


@dataclass(frozen=True)
class MethodSpec:
    """One row of the comparison."""

    name: str
    inputs: Inputs = "both"
    teacher: str = ""
    """What the teacher sees: image, dire, or no teacher."""
    lambda_: float = 1.0
    adaptive: bool = False
    imitation: Imitation = "mse"
    fusion: Fusion = "concat"
    passes: int = 1
    """Of the diffusion model for one verdict (DIRE: of 20 steps each way)."""
    backbone: str = ""
    """In place of the common one."""
    stage: int = 0
    seeds: int = 0
    """How many of the seeds (0: all)."""


METHODS = (
    MethodSpec("dire", inputs="dire", passes=40),
    MethodSpec("distildire-image", teacher="image"),
    MethodSpec("distildire-dire", teacher="dire"),
    MethodSpec("image", inputs="image", passes=0),
    MethodSpec("eps0", inputs="noise"),
    MethodSpec("no-distillation"),
    MethodSpec("lambda-0.1", teacher="dire", lambda_=0.1),
    MethodSpec("lambda-0.5", teacher="dire", lambda_=0.5),
    MethodSpec("lambda-adaptive", teacher="dire", adaptive=True),
    MethodSpec("kl", teacher="dire", imitation="kl"),
    MethodSpec("separate", teacher="dire", fusion="separate"),
    MethodSpec("resnet50", teacher="dire", backbone="resnet50", stage=4, seeds=1),
)
"""lambda-1.0, MSE on maps and one joint network are `distildire-dire` itself."""


def chosen(config: WorldConfig) -> list[MethodSpec]:
    """The methods that a run compares, in the order of `METHODS`.

    Raises:
        ValueError: a name that isn't one of them.
    """
    names = config.student.methods or tuple(spec.name for spec in METHODS)
    unknown = set(names) - {spec.name for spec in METHODS}
    if unknown:
        known = ", ".join(spec.name for spec in METHODS)
        raise ValueError(
            f"student.methods: {', '.join(sorted(unknown))} unknown; there are {known}"
        )
    return [spec for spec in METHODS if spec.name in names]
