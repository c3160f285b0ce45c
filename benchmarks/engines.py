"""How far OpenVINO's scores of the bundled model are from ONNX Runtime's.

python benchmarks/engines.py MANIFEST [--split train] [--count 300]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from distildire import Detector
from distildire.data.manifest import read_manifest, rows_of_split


def main() -> None:
    """Score the same pictures on both; print how they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=int, default=300)
    args = parser.parse_args()
    table = rows_of_split(read_manifest(args.manifest), args.split)
    table = table.sample(min(args.count, len(table)), random_state=0)
    cpu, other = (
        Detector("nano", device=device).predict(table["path"].to_list())
        for device in ("cpu", "openvino")
    )
    pairs = [(a, b) for a, b in zip(cpu, other, strict=True) if a.error is None]
    gaps = np.array([abs(float(a.logit or 0) - float(b.logit or 0)) for a, b in pairs])
    changed = [(a.verdict, b.verdict) for a, b in pairs if a.verdict != b.verdict]
    print(
        f"{len(pairs)} pictures of {table['source'].nunique()} sources: logits differ by "
        f"{np.median(gaps):.2f} in the median, {np.quantile(gaps, 0.95):.2f} for one in twenty, "
        f"{gaps.max():.2f} at most; {len(changed)} verdicts change, "
        f"{sum('unsure' in pair for pair in changed)} of them to or from unsure"
    )


if __name__ == "__main__":
    main()
