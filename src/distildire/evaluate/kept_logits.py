"""Logits of an evaluation that outlive a kill: the same command goes on where it was."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distildire.io.hashing import sha256_of
from distildire.io.pictures import RGB
from distildire.io.writing import make_folder, writing

if TYPE_CHECKING:
    from distildire.detector import Detector


class KeptLogits:
    """A detector that writes down each logit, and looks up those that an earlier run wrote.

    A picture is known by its pixels, so that its degraded forms are kept as well. One JSON line
    each, below a first one that names the model and what runs it: lines of others are dropped.
    """

    def __init__(self, detector: Detector, path: Path) -> None:
        self.detector, self.path = detector, path
        self._known = _read(path, _about(detector))
        self._lock = threading.Lock()
        make_folder(path.parent)
        with writing(path):
            self._file = path.open("w", encoding="utf-8")
            lines = [_about(detector), *([key, logit] for key, logit in self._known.items())]
            self._file.writelines(json.dumps(line) + "\n" for line in lines)
            self._file.flush()

    def logit(self, rgb: RGB, *, alone: bool = True) -> float:
        """As the detector's; of uint8 [H, W, 3]."""
        key = sha256_of(repr(rgb.shape).encode() + rgb.tobytes())
        found = self._known.get(key)
        if found is None:
            found = self.detector.logit(rgb, alone=alone)
            with self._lock, writing(self.path):
                self._known[key] = found
                self._file.write(json.dumps([key, found]) + "\n")
                self._file.flush()
        return found

    def verdict_of(self, logit: float, fpr: float | None = None) -> tuple[float, Any]:
        """As the detector's."""
        return self.detector.verdict_of(logit, fpr)

    def close(self) -> None:
        """Leave the file, for a run to come."""
        self._file.close()


@contextmanager
def keeping_logits(detector: Detector, path: Path) -> Iterator[KeptLogits]:
    """Keep logits in `path` while the block runs; it goes when the block ends well."""
    kept = KeptLogits(detector, path)
    try:
        yield kept
    finally:
        kept.close()
    path.unlink(missing_ok=True)


def _about(detector: Detector) -> dict[str, str]:
    from distildire import __version__

    return {
        "version": __version__,
        "model": detector.bundle.sha256,
        "preprocessing": repr(detector.bundle.preprocessing),
        "device": detector.device,
    }


def _read(path: Path, about: dict[str, str]) -> dict[str, float]:
    """The whole lines of a file that another run of the same model left."""
    try:
        first, *rest = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if json.loads(first) != about:
            return {}
        # A kill leaves half a line, which is the last one.
        return dict(json.loads(line) for line in rest if line.endswith("]\n"))
    except (OSError, ValueError):
        return {}
