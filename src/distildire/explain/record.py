"""A forensic record: all that is known of one verdict, to file beside the picture.

The same picture, model and versions give the same bytes, so that a second examiner can
check a record by making it again; a time stands in it only where the caller gives one.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any, cast

import numpy as np

from distildire import __version__
from distildire.detector import NO_EVIDENCE, NO_NUMBER, Detector
from distildire.explain.explanation import heat_summary, looked_at, stability_of
from distildire.explain.facts import Facts, facts_of
from distildire.explain.storage import Storage
from distildire.explain.words import LIMITS, headline, paragraph
from distildire.gate import nothing_to_judge
from distildire.io.data_uri import thumbnail
from distildire.io.hashing import sha256_of
from distildire.io.perceptual_hashes import perceptual_hash
from distildire.io.pictures import MAX_PIXELS, RGB, ImageError, decode_bytes, read_bytes
from distildire.io.text import storable
from distildire.io.writing import write_texts

FORMAT = 1
"""Version of the record's schema."""

_PACKAGES = ("numpy", "Pillow", "onnxruntime", "c2pa-python")


@dataclass(frozen=True)
class Record:
    """One verdict with its circumstances, as a tree fit for JSON."""

    tree: Mapping[str, Any]

    def to_json(self) -> str:
        """UTF-8 JSON after the schema that `schema()` gives."""
        return json.dumps(self.tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """One page that needs nothing else, neither network nor script."""
        from distildire.explain.record_html import render

        return render(self.tree)

    def save(self, path: str | Path) -> Path:
        """Write HTML where the name ends so, else JSON; returns the path."""
        path = Path(path)
        self.save_all([path])
        return path

    def save_all(self, paths: Iterable[Path]) -> None:
        """Write several files, all of them or none; see `save`."""
        html = {".html", ".htm"}
        write_texts(
            {p: self.to_html() if p.suffix.lower() in html else self.to_json() for p in paths}
        )


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record."""
    file = resources.files("distildire") / "schemas" / "record-1.json"
    return cast(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))


def make_record(  # noqa: PLR0913
    detector: Detector,
    source: str | Path | bytes,
    *,
    name: str | None = None,
    fpr: float | None = None,
    stability: bool = True,
    heatmap: bool = True,
    made_at: str | None = None,
    max_pixels: int = MAX_PIXELS,
    rgb: RGB | None = None,
    facts: Facts | None = None,
) -> Record:
    """Examine one picture file.

    Args:
        detector: the model.
        source: a path, or the bytes of the file.
        name: to appear as the file's name; the last part of a path by default.
        fpr: error budget of the verdict, 0..0.5; the detector's by default.
        stability: score the picture again under re-encoding and resizing.
        heatmap: add where the score comes from.
        made_at: a time to state, as ISO 8601; none by default.
        max_pixels: larger pictures are refused.
        rgb: the pixels of `source`, where they are decoded already.
        facts: what `source` holds beside them, where it is read already.

    Raises:
        ImageError: the picture can't be scored; there is no record without a score.
        ValueError: `fpr` out of range.
    """
    data = source if isinstance(source, bytes) else read_bytes(Path(source))
    if name is None:
        name = "" if isinstance(source, bytes) else Path(source).name
    budget = detector.fpr if fpr is None else fpr
    if rgb is None:
        rgb = decode_bytes(data, max_pixels=max_pixels)
    crops = detector.bundle.preprocessing(rgb)
    logit = float(detector.score_crops(crops).mean(dtype=np.float64))
    if not np.isfinite(logit):
        raise ImageError(NO_NUMBER)
    note = nothing_to_judge(rgb, crops)
    result = _result(detector, logit, note, budget)
    result["looked_at"] = looked_at(detector.bundle.preprocessing, rgb)
    # What holds nothing to judge has no verdict that could be stable, and no place of evidence.
    checked = stability_of(detector, rgb, budget, logit) if stability and note is None else None
    heat = heat_summary(detector, rgb) if heatmap and note is None else None
    facts = facts or facts_of(data)
    c2pa, origin = facts.c2pa, facts.origin
    tree = {
        "format": FORMAT,
        "made_at": made_at,
        "input": _input(data, rgb, name, facts.storage),
        "provenance": {
            "declares": origin.declares,
            "findings": [dataclasses.asdict(finding) for finding in origin.findings],
            "c2pa": c2pa,
        },
        "result": result,
        "stability": checked,
        "heatmap": heat,
        "model": _model(detector),
        "software": _software(),
        "headline": headline(result, checked),
        "summary": paragraph(result, checked, c2pa, detector.bundle.calibration),
        "limits": list(LIMITS),
    }
    return Record(tree)


def _input(data: bytes, rgb: RGB, name: str, storage: Storage) -> dict[str, Any]:
    return {
        "name": storable(name),
        "sha256": sha256_of(data),
        "perceptual_hash": perceptual_hash(rgb),
        "bytes": len(data),
        "format": storage.format,
        "mode": storage.mode,
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "exif": storage.exif,
        "gps": storage.gps,
        "text": storage.text,
        "passed_over": list(storage.passed_over),
        "thumbnail": thumbnail(rgb),
    }


def _result(detector: Detector, logit: float, note: str | None, fpr: float) -> dict[str, Any]:
    probability, verdict = detector.verdict_of(logit, fpr)
    if note is not None:
        probability, verdict = NO_EVIDENCE, "unsure"
    calibration = detector.bundle.calibration
    assert calibration is not None
    bounds = calibration.thresholds(fpr)
    return {
        "verdict": verdict,
        "probability": round(probability, 6),
        "logit": round(logit, 6),
        "fpr": fpr,
        "note": note,
        "real_below": {
            "logit": round(bounds[0], 6),
            "probability": round(float(calibration.probability(bounds[0])), 6),
        },
        "fake_above": {
            "logit": round(bounds[1], 6),
            "probability": round(float(calibration.probability(bounds[1])), 6),
        },
    }


def _model(detector: Detector) -> dict[str, Any]:
    bundle = detector.bundle
    calibration = bundle.calibration
    assert calibration is not None
    return {
        "name": bundle.name,
        "sha256": bundle.sha256,
        "preprocessing": dataclasses.asdict(bundle.preprocessing),
        "looks_at": bundle.preprocessing.in_words(),
        "calibration": {
            "temperature": calibration.temperature,
            "bias": calibration.bias,
            "n_real": calibration.n_real,
            "n_fake": calibration.n_fake,
            "data": calibration.data,
        },
    }


def _software() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "distildire": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions
