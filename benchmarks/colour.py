"""What a colour profile does to the score: pictures in Display P3, with the profile and without.

python benchmarks/colour.py MANIFEST [--model nano] [--count 150]

As many real as generated pictures of the split `val`, equalised: as they are; in Display P3 with
the profile, which is applied; and the same numbers with the profile left out.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from distildire import Detector
from distildire.data.manifest import FAKE, read_manifest
from distildire.data.ranking import auc
from distildire.io.cores import over_cores
from distildire.io.pictures import decode, decode_bytes
from distildire.io.preprocessing import equalize

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("tests", "tests/io")]

from test_colour import P3, changed

PROFILE = changed(primaries=P3)


def in_p3(rgb: np.ndarray, *, told: bool) -> bytes:
    """A PNG of the picture in Display P3."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(PROFILE))
    image = Image.fromarray(rgb)
    seen = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), opened)
    assert seen is not None
    buffer = io.BytesIO()
    seen.save(buffer, "PNG", icc_profile=PROFILE if told else None)
    return buffer.getvalue()


def main() -> None:
    """Score all three, and print how far the logit moves and what it does to the AUC."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=150, help="Pictures of each class.")
    args = parser.parse_args()
    table = read_manifest(args.manifest)
    val = table[table["split"] == "val"].groupby("label").sample(args.count, random_state=0)
    detector = Detector(args.model)

    def scored(path: str) -> list[float]:
        rgb = equalize(decode(path))
        pictures = [rgb, *(decode_bytes(in_p3(rgb, told=told)) for told in (True, False))]
        return [detector.logit(picture, alone=False) for picture in pictures]

    logits = np.array(list(over_cores(scored, val["path"], detector.cores)))
    fake = (val["label"] == FAKE).to_numpy()
    for name, found in zip(("sRGB", "P3, applied", "P3, left out"), logits.T, strict=True):
        moved = np.abs(found - logits[:, 0])
        print(
            f"{name:14} AUC {auc(fake, found):.3f}, the logit moves by {np.median(moved):.3f} "
            f"(median), {np.quantile(moved, 0.95):.3f} (19 of 20), {moved.max():.3f} (most)"
        )


if __name__ == "__main__":
    main()
