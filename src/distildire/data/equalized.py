"""A folder of equalised pictures: one history for both classes, made once."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from distildire.images import RGB, ImageError, decode_bytes, limit_short_side, read_bytes
from distildire.whole_files import whole_file

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""


def equalized_bytes(
    rgb: RGB, short_side: int = 512, quality: int = 90, crop: int | None = None
) -> bytes:
    """The JPEG whose pixels are `images.equalize(rgb, short_side, quality)`.

    With `crop`, the central square of at most that side is kept before the JPEG pass.
    """
    rgb = limit_short_side(rgb, short_side)
    if crop is not None:
        height, width = rgb.shape[:2]
        high, wide = min(crop, height), min(crop, width)
        top, left = (height - high) // 2, (width - wide) // 2
        rgb = rgb[top : top + high, left : left + wide]
    buffer = io.BytesIO()
    # The settings of images.jpeg, so that the pixels are the same.
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=2)
    return buffer.getvalue()


def equalize_table(
    table: pd.DataFrame,
    out: Path,
    *,
    short_side: int = 512,
    quality: int = 90,
    crop: int | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Write every picture of a manifest equalised under `out`; return the new manifest.

    Files are named by the hash of the original's bytes, so that a second run, or another
    manifest with the same pictures, writes only what is missing. The new manifest (also
    written as `out`/manifest.csv, paths relative to it) keeps all columns; `path` and
    `sha256` are the new files', `original` the old path. Rows that can't be read are left
    out and listed in `out`/unreadable.json.

    Without `crop` sizes may still differ by class where one class is smaller than
    `short_side`. A detector that cuts fixed crops can't see that, but a tool that resizes
    whole pictures can: for such tools give `crop`, the side of a central square (see
    `common_side`).

    Raises:
        ValueError: `out` was made with other settings.
    """
    settings = {"short_side": short_side, "quality": quality, "crop": crop}
    _claim(out, settings)
    rows, bad = [], []

    def work(path: str) -> tuple[str, str] | ImageError:
        try:
            return _write(path, out, short_side, quality, crop)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for row, result in enumerate(pool.map(work, table["path"])):
            if isinstance(result, ImageError):
                bad.append({"path": table["path"].iloc[row], "error": str(result)})
            else:
                rows.append((row, *result))
            if progress is not None:
                progress(row + 1, len(table))
    new = table.iloc[[row for row, _, _ in rows]].copy()
    new["original"] = new["path"]
    new["path"] = [name for _, name, _ in rows]
    new["sha256"] = [sha256 for _, _, sha256 in rows]
    new = new.reset_index(drop=True)
    new.to_csv(out / "manifest.csv", index=False)
    (out / "unreadable.json").write_text(json.dumps(bad, indent=1) + "\n")
    new["path"] = [str(out.resolve() / name) for name in new["path"]]
    return new


def common_side(table: pd.DataFrame, short_side: int = 512) -> int:
    """Largest square, up to `short_side`, that every readable picture of a manifest holds.

    Reads headers only.
    """
    side = short_side
    for path in table["path"]:
        try:
            with Image.open(path) as image:
                side = min(side, *image.size)
        # An unreadable picture is reported by whoever decodes it.
        except Exception:
            continue
    return side


def _claim(out: Path, settings: dict[str, int | None]) -> None:
    path = out / "equalize.json"
    if path.is_file():
        found = json.loads(path.read_text())
        if found != settings:
            raise ValueError(
                f"{out} holds pictures equalised with {found}, not {settings}: give another folder"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings) + "\n")


def _write(
    path: str, out: Path, short_side: int, quality: int, crop: int | None
) -> tuple[str, str]:
    """(path relative to `out`, sha256 of the new file)."""
    data = read_bytes(Path(path))
    name = hashlib.sha256(data).hexdigest()
    relative = Path(name[:2]) / f"{name}.jpg"
    target = out / relative
    if target.is_file():
        return str(relative), hashlib.sha256(target.read_bytes()).hexdigest()
    new = equalized_bytes(decode_bytes(data), short_side, quality, crop)
    target.parent.mkdir(exist_ok=True)
    with whole_file(target) as file:
        file.write(new)
    return str(relative), hashlib.sha256(new).hexdigest()
