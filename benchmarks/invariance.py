"""How far a verdict moves when a picture is turned, mirrored, or saved once more.

    python benchmarks/invariance.py MANIFEST [--model MODEL] [--count 100]

Real pictures of the validation split, each in its eight orientations and as JPEG 95. Prints the
median over pictures of: the logits' standard deviation over the orientations, the largest step
between two of them, the step by mirroring, by half a turn, and by the JPEG pass; and the standard
deviation of the logit over pictures, which is the scale to read them by.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from distildire import Detector
from distildire.data.manifest import REAL, read_manifest
from distildire.io.pictures import decode


def main() -> None:
    """Score every version of every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=100)
    args = parser.parse_args()
    table = read_manifest(args.manifest)
    table = table[(table["label"] == REAL) & (table["split"] == "val")]
    table = table.groupby("source").head(3).sample(args.count, random_state=0)
    detector = Detector(args.model)
    rows = []
    for path in table["path"]:
        rgb = decode(path)
        turned = [np.rot90(side, k) for side in (rgb, rgb[:, ::-1]) for k in range(4)]
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG", quality=95)
        versions = [*turned, np.asarray(Image.open(buffer))]
        rows.append([detector.logit(np.ascontiguousarray(v)) for v in versions])
    logits = np.array(rows)
    sides = logits[:, :8]
    figures = {
        "deviation over eight orientations": sides.std(axis=1),
        "largest step between two": np.ptp(sides, axis=1),
        "mirrored": np.abs(sides[:, 4] - sides[:, 0]),
        "half a turn": np.abs(sides[:, 2] - sides[:, 0]),
        "JPEG 95": np.abs(logits[:, 8] - logits[:, 0]),
    }
    scale = float(logits[:, 0].std())
    print(f"{args.model}: deviation of the logit over {len(rows)} pictures {scale:.2f}")
    for name, steps in figures.items():
        print(f"  {name}: median {np.median(steps):.2f}, {np.median(steps) / scale:.2f} of that")


if __name__ == "__main__":
    main()
