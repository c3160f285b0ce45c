"""What a trained detector is on disk: model.onnx, bundle.json and MODEL_CARD.md.

A detector whose noise network is too large to carry along (ADM: 2.2 GB) is a torch bundle:
`student.safetensors` in place of the graph, and in bundle.json which student it is and which
noise source it needs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

from distildire.calibration import Calibration
from distildire.io.hashing import sha256_of
from distildire.io.preprocessing import Preprocessing
from distildire.io.text import words_of
from distildire.io.typed import from_tree
from distildire.io.writing import write_json

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the bundle format; a reader refuses a newer one."""


IR_FILES = ("model.xml", "model.bin")
"""OpenVINO's form of a graph; stands in the place of model.onnx in a folder made by `export`."""


class BundleError(ValueError):
    """A damaged or foreign bundle; the message is one sentence."""


class Output(NamedTuple):
    """As ONNX Runtime describes an output of a graph, for what else runs one."""

    name: str


@dataclass(frozen=True)
class TorchPart:
    """What a torch bundle runs."""

    student: dict[str, Any]
    """Keywords of `distill.student.Student`, or `{"form": "official"}`."""
    noise: str
    """Noise source: adm, or a path (see `load_noise_source`); it is not in the bundle."""


@dataclass(frozen=True)
class Bundle:
    """A detector's description; the graph itself stays in `graph` until it is run.

    The graph maps `rgb` uint8 [N, crop, crop, 3] to `logit` float32 [N], noise and student
    together; of a torch bundle, `graph` is the student's weights alone.
    """

    name: str
    folder: Path
    sha256: str
    """Of the graph's file."""
    preprocessing: Preprocessing
    calibration: Calibration | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    """Config, seed, data fingerprint, package versions and command of the training run."""
    torch: TorchPart | None = None
    """Of a torch bundle: the student and its noise source."""
    openvino: dict[str, str] | None = None
    """SHA-256 of each of `IR_FILES`, where the folder holds them in place of model.onnx."""
    heatmap: dict[str, Any] | None = None
    """How well the heat map finds an inserted patch (`PatchInsertion.to_dict`); None: unknown."""

    @property
    def heatmap_note(self) -> str:
        """What goes beside every heat map: how far it can be trusted to point at a place."""
        if self.heatmap is None:
            return "Whether this model's heat map points at generated places was not measured."
        return str(self.heatmap["sentence"])

    @property
    def neutral(self) -> float:
        """The logit of even odds; 0 where there is no calibration."""
        return self.calibration.neutral if self.calibration else 0.0

    @property
    def is_ir(self) -> bool:
        """Whether the graph is in OpenVINO's form; `sha256` is that of the ONNX file still."""
        return self.openvino is not None

    @property
    def graph(self) -> Path:
        """Path of the ONNX file, of OpenVINO's, or of a torch bundle's weights."""
        if self.openvino is not None:
            return self.folder / IR_FILES[0]
        return self.folder / ("student.safetensors" if self.torch else "model.onnx")

    def save(self) -> None:
        """Write bundle.json beside the graph, whole or not at all."""
        about = {
            "format": FORMAT,
            "name": self.name,
            "sha256": self.sha256,
            "preprocessing": asdict(self.preprocessing),
            "calibration": self.calibration.to_dict() if self.calibration else None,
            "provenance": self.provenance,
        }
        if self.heatmap is not None:
            about["heatmap"] = self.heatmap
        if self.torch is not None:
            about["torch"] = asdict(self.torch)
        if self.openvino is not None:
            about["openvino"] = self.openvino
        write_json(self.folder / "bundle.json", about, durable=True)

    def with_calibration(self, calibration: Calibration) -> Bundle:
        """A copy with `calibration`, which must belong to this bundle's weights."""
        if calibration.weights_sha256 != self.sha256:
            raise BundleError(
                f"{self.name}: the calibration belongs to other weights "
                f"({calibration.weights_sha256[:12]}, not {self.sha256[:12]}): calibrate again"
            )
        return replace(self, calibration=calibration)


@dataclass(frozen=True)
class _Head:
    """The keys of bundle.json."""

    name: str
    sha256: str
    preprocessing: Mapping[str, Any]
    calibration: Mapping[str, Any] | None
    provenance: Mapping[str, Any] | None = None
    torch: Mapping[str, Any] | None = None
    openvino: Mapping[str, Any] | None = None
    heatmap: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.name.isprintable() or not 0 < len(self.name) <= 100:
            raise ValueError("bundle.name is empty, over 100 letters, or not of one line")


def models_folder() -> Path:
    """Where the bundled models lie."""
    return Path(str(resources.files("distildire") / "models"))


ENTRY_POINTS = "distildire.models"
"""Group in which a model package names its model: a module whose folder holds the bundle, or a
function that gives the folder."""

PACKAGES = {"base": "distildire-base"}
"""Models that come in a package of their own."""


def bundled() -> list[str]:
    """Names of the models in this package and in installed model packages."""
    own = {path.parent.name for path in models_folder().glob("*/bundle.json")}
    return sorted(own | {point.name for point in metadata.entry_points(group=ENTRY_POINTS)})


def _installed(name: str) -> Path | None:
    """The folder of a model by name; None where nobody installed it.

    Raises:
        BundleError: its package is broken.
    """
    if Path(name).name != name or name == "..":  # a path is no name
        return None
    if (models_folder() / name / "bundle.json").is_file():
        return models_folder() / name
    for point in metadata.entry_points(group=ENTRY_POINTS, name=name):
        try:
            found: Any = point.load()
            return Path(found()) if callable(found) else Path(found.__file__).parent
        except Exception as error:  # whatever a stranger's package raises
            raise BundleError(f"{name}: its package can't be loaded: {words_of(error)}") from error
    return None


def load_bundle(model: str | Path, *, calibrated: bool = True) -> Bundle:
    """Open a bundled model by name, or a bundle folder by path, and check it.

    Args:
        model: name or folder.
        calibrated: False leaves its calibration out, whatever is wrong with it, for one that is
            to take another.

    Raises:
        BundleError: unknown name, missing or damaged file, wrong hash, newer format, or a
            calibration of other weights.
    """
    installed = _installed(str(model))
    folder = installed or Path(model)
    if installed and (Path(model) / "bundle.json").is_file() and not folder.samefile(model):
        log.warning(
            "%s: the installed model is taken, not the folder of that name: give ./%s for it",
            model, model,
        )  # fmt: skip
    if installed and not folder.is_dir():
        raise BundleError(f"{model}: its package names a folder that is not there: {folder}")
    if not folder.is_dir():
        if package := PACKAGES.get(str(model)):
            raise BundleError(
                f"{model}: this model is a package of its own: pip install {package}, or from a "
                f"checkout of distildire: pip install . packages/{package}"
            )
        raise BundleError(
            f"{model}: no such model; bundled are {', '.join(bundled()) or 'none'}, or give the "
            "folder of a bundle"
        )
    about = _read_description(folder)
    try:
        head = from_tree(_Head, about, "bundle")
        bundle = Bundle(
            name=head.name,
            folder=folder,
            sha256=head.sha256,
            preprocessing=from_tree(Preprocessing, head.preprocessing, "preprocessing", known=True),
            provenance=dict(head.provenance or {}),
            torch=from_tree(TorchPart, head.torch, "torch", known=True) if head.torch else None,
            openvino=_openvino(head.openvino),
            heatmap=_heatmap(head.heatmap),
        )
        stated = head.calibration if calibrated else None
        calibration = Calibration.from_dict(stated) if stated else None
    except ValueError as error:
        raise BundleError(f"{folder}: bundle.json is damaged: {words_of(error)}") from error
    for file, expected in (bundle.openvino or {bundle.graph.name: bundle.sha256}).items():
        if not (folder / file).is_file():
            raise BundleError(f"{folder}: not a whole bundle: {file} is missing")
        if sha256_of(folder / file) != expected:
            raise BundleError(f"{folder}: {file} is damaged or was replaced: its hash differs")
    return bundle.with_calibration(calibration) if calibration else bundle


def _openvino(found: Any) -> dict[str, str] | None:
    if found is None:
        return None
    if not isinstance(found, dict) or set(found) != set(IR_FILES):
        raise ValueError(f"the hashes of {' and '.join(IR_FILES)} are not whole")
    return {name: str(found[name]) for name in IR_FILES}


def _heatmap(found: Any) -> dict[str, Any] | None:
    if found is None:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("sentence"), str):
        raise ValueError("the heat map's measurement has no sentence")
    return found


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "bundle.json"
    if not path.is_file():
        raise BundleError(f"{folder}: not a bundle: bundle.json is missing")
    try:
        about = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise BundleError(f"{folder}: bundle.json can't be read: {words_of(error)}") from error
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise BundleError(f"{folder}: bundle.json describes no distildire bundle")
    if about["format"] > FORMAT:
        raise BundleError(
            f"{folder}: bundle format {about['format']} is newer than this version reads "
            f"({FORMAT}): upgrade distildire"
        )
    return about
