"""Is the first-step noise discriminative? Makes the tables and plots of docs/noise.md.

PYTHONPATH=projects python -m noise_analysis.run MANIFEST --split train --per-source 40 --out OUT
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from distildire.data.manifest import read_manifest
from distildire.evaluate.run import rows_of_split
from distildire.io.html_page import markdown_table
from distildire.noise import load_noise_source
from noise_analysis.analysis import analyse_noise

SHOWN = ("generator", "pictures", "sources", "auc, as it is", "auc, jpeg 70", "log energy G",
         "log kurtosis", "peak at period 2", "peak at period 4", "peak at period 8",
         "autocorrelation 0,1", "correlation RG")  # fmt: skip


def main() -> None:
    """Analyse, then write noise.json, noise.md, statistics.csv and the plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--source", default="nano", help="noise source: nano, adm or a path")
    parser.add_argument("--per-source", type=int, default=40)
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    table = rows_of_split(read_manifest(args.manifest), args.split)
    result = analyse_noise(
        load_noise_source(args.source),
        table,
        side=args.side,
        per_source=args.per_source,
        progress=lambda done, total: done % 100 or logging.info("%d of %d", done, total),
    )
    result.save(args.out)
    by_generator = [{name: row[name] for name in SHOWN} for row in result.by_generator]
    probe = [{k: v for k, v in row.items() if k != "folds"} for row in result.probe]
    text = (
        markdown_table(probe) + f"\n{result.probe[0]['folds']}\n\n" + markdown_table(by_generator)
    )
    (args.out / "noise.md").write_text(text)
    logging.info("%s", text)


if __name__ == "__main__":
    main()
