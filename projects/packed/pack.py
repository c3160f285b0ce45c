"""The crops of a manifest as small squares in Parquet files that travel easily.

    PYTHONPATH=projects python -m packed.pack MANIFEST --out DIR

Each crop's centre square is brought to 256 pixels (of the 448 of most: a little over the half size
that the detector looks at) and kept as AVIF. Rows are mixed, validation first, so that any
number of parts is a fair sample; a part is as large as `--mib` says.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
from PIL import Image

from distildire.data.manifest import read_manifest
from distildire.io.pictures import ImageError, decode

SIDE = 256
KEPT = ["label", "split", "source", "repository", "generator", "style", "sha256"]


def squared(path: str, quality: int) -> bytes | None:
    """The centre square of a picture, `SIDE` x `SIDE`, as AVIF; None where it can't be read."""
    try:
        picture = Image.fromarray(decode(path))
    except ImageError:
        return None
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    buffer = io.BytesIO()
    picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box).save(
        buffer, "AVIF", quality=quality, subsampling="4:4:4", speed=8, max_threads=1
    )
    return buffer.getvalue()


def parts_of(table: pd.DataFrame, quality: int, limit: int) -> Iterator[pd.DataFrame]:
    """Tables of `KEPT` and the column `image`, each of about `limit` bytes."""
    rows: list[dict[str, object]] = []
    size = 0
    with ProcessPoolExecutor() as pool:
        images = pool.map(squared, table["path"], [quality] * len(table), chunksize=32)
        for row, image in zip(table[KEPT].to_dict("records"), images, strict=True):
            if image is None:
                continue
            rows.append(row | {"image": image})
            size += len(image)
            if size > limit:
                yield pd.DataFrame(rows)
                rows, size = [], 0
    if rows:
        yield pd.DataFrame(rows)


def main() -> None:
    """Read the manifest, write `part-00.parquet` and so on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--quality", type=int, default=80, help="of AVIF, 0 to 100")
    parser.add_argument("--mib", type=float, default=56.0, help="size of a part")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    table = read_manifest(args.manifest).sample(frac=1, random_state=0)
    table = table.sort_values("split", key=lambda s: s != "val", kind="stable")
    args.out.mkdir(parents=True, exist_ok=True)
    for n, part in enumerate(parts_of(table, args.quality, int(args.mib * 2**20))):
        path = args.out / f"part-{n:02}.parquet"
        part.to_parquet(path, index=False, compression="none")
        print(f"{path}: {len(part)} pictures, {path.stat().st_size / 2**20:.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
