"""From local git clones to training crops: what a manifest names, made again to the byte.

A row names an original (repository, commit, path in it) and its label. How the crop is cut
is a pure function of the original's bytes (`default_cut`), unless the manifest says it:
scale, kernel and box, then one JPEG pass. Both classes go through it alike. A row with
`reconstruction` gives what that autoencoder makes of the crop, before the same JPEG pass.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from distildire.data.clones import find_clone, read_blobs
from distildire.data.manifest import (
    FAKE,
    REAL,
    ManifestError,
    read_columns,
    text_of_bytes,
    translate_labels,
)
from distildire.io.containers import readable_kind
from distildire.io.cores import usable_cores
from distildire.io.hashing import sha256_of
from distildire.io.perceptual_hashes import look
from distildire.io.pictures import RGB, ImageError, decode, open_picture
from distildire.io.preprocessing import encode_jpeg
from distildire.io.progress import DoneOf
from distildire.io.text import brief, spellings, words_of
from distildire.io.writing import whole_file, write_json

if TYPE_CHECKING:
    import pandas as pd

MANIFEST, PROBLEMS, PARTS = "manifest.parquet", "problems.csv", ".parts"
"""What is written beside the crops."""

NEEDED = ("repository", "commit", "original_path", "label")
"""Columns without which nothing can be made."""

SIDE = 448
"""Largest side of a crop, in pixels."""

LARGEST_SHORT_SIDE = 800
"""Pictures over this are brought to a random short side of 512 to 800 before they are cut."""

LEAST_SIDE = 200
"""Originals with a side under this many pixels are passed over."""

PSNR_TOLERANCE = 0.1
"""How far a reconstruction may be from the stated PSNR, in dB, where its bytes are others."""

KERNELS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "box": Image.Resampling.BOX,
}


@dataclass(frozen=True)
class Cut:
    """How a crop is made of a decoded picture."""

    scale: float
    """Factor from the original's pixels to the crop's, at most 1."""
    kernel: str
    """Resampling kernel, a key of `KERNELS`; without effect at scale 1."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom, in pixels of the scaled picture."""
    jpeg_quality: int
    jpeg_subsampling: int
    """0 for 4:4:4, 2 for 4:2:0."""


def default_cut(
    original_sha256: str, width: int, height: int, crop: int = 0, *, scale: float | None = None
) -> Cut:
    """The documented procedure: a function of the original's bytes and the crop's number.

    Over 800 pixels on the short side: scaled to a random 512 to 800 by a random kernel, unless
    `scale` is given. Then a box of at most 448 x 448 at a random place, and JPEG of quality 85
    to 95 with 4:4:4 or 4:2:0 chroma. `random.Random` is seeded by the hash, whose `random()`
    never changes.
    """
    rng = random.Random(f"{original_sha256}/{crop}")
    short = min(width, height)
    target = 512 + rng.random() * (LARGEST_SHORT_SIDE - 512)
    kernel = list(KERNELS)[int(rng.random() * len(KERNELS))]
    if scale is None:
        # Rounded, so that a manifest in decimal text gives the same pixels.
        scale = round(target / short, 6) if short > LARGEST_SHORT_SIDE else 1.0
    scaled = [round(width * scale), round(height * scale)]
    sides = [min(SIDE, side) for side in scaled]
    left, top = (
        int(rng.random() * (whole - side + 1)) for whole, side in zip(scaled, sides, strict=True)
    )
    quality, subsampling = 85 + int(rng.random() * 11), (0, 2)[int(rng.random() * 2)]
    return Cut(scale, kernel, (left, top, left + sides[0], top + sides[1]), quality, subsampling)


def cut_picture(rgb: RGB, cut: Cut) -> RGB:
    """The pixels [h, w, 3] of a crop before its JPEG pass.

    Raises:
        ValueError: the box is outside the scaled picture.
    """
    height, width = rgb.shape[:2]
    left, top, right, bottom = cut.box
    scaled = (round(width * cut.scale), round(height * cut.scale))
    if not (0 <= left < right <= scaled[0] and 0 <= top < bottom <= scaled[1]):
        raise ValueError(f"box {cut.box} is outside the picture of {scaled[0]} x {scaled[1]}")
    if cut.scale == 1.0:
        return rgb[top:bottom, left:right]
    across, down = width / scaled[0], height / scaled[1]
    source = (left * across, top * down, right * across, bottom * down)
    picture = Image.fromarray(rgb)
    return np.asarray(picture.resize((right - left, bottom - top), KERNELS[cut.kernel], box=source))


def psnr_of(found: RGB, expected: RGB) -> float:
    """Peak signal-to-noise ratio of uint8 pictures in dB, to a hundredth, at most 99."""
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    return round(min(10 * math.log10(255**2 / error), 99.0), 2) if error else 99.0


Row = dict[str, Any]
Reconstruct = Callable[[str, RGB], RGB]
"""From the name of an autoencoder and a crop [h, w, 3] to its reconstruction, same shape.

Raises ValueError where it can't be made.
"""


def make_row(
    row: Row,
    original: bytes | None,
    out: Path,
    reconstruct: Reconstruct | None,
    taken: dict[str, str] | None = None,
) -> Row:
    """Make one row's crop; the row with every column filled, `problem` ("" if none) and `made`.

    `taken` says of the crops made so far, by path, what they are, and gets this one's: none is
    overwritten by another.
    """
    made = {**row, "problem": "", "made": True}
    name = row.get("reconstruction") or ""
    if "psnr" in row or name:
        made["psnr"] = None
    try:
        rgb, known = _read(row, original)
        digest, crop = known["original_sha256"], int(float(row.get("crop") or 0))
        try:
            cut = _cut_of(row, digest, rgb.shape[1], rgb.shape[0], crop)
            pixels = cut_picture(rgb, cut)
        except ValueError as error:
            raise _NotMadeError(f"different: {error}") from error
        if name:
            whole, pixels = pixels, _reconstructed(name, pixels, reconstruct)
            made["psnr"] = psnr_of(pixels, whole)
        content = encode_jpeg(pixels, cut.jpeg_quality, cut.jpeg_subsampling)
        sha256 = sha256_of(content)
        own = f"{digest[:16]}-{crop}{'-' + name if name else ''}"
        path = _free_path(row, own, sha256, {} if taken is None else taken)
    except _NotMadeError as problem:
        return _not_made(row, str(problem))
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out / path) as file:
        file.write(content)
    if row.get("sha256") and row["sha256"] != sha256 and not _as_near(row, made):
        made["problem"] = "different: the crop has other bytes"
    return {
        **made,
        **asdict(cut),
        "box": ",".join(map(str, cut.box)),
        "path": path,
        "sha256": sha256,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        **known,
    }


_TOO_SMALL = "missing: too small"


class _NotMadeError(Exception):
    """The problem of a row that has no crop."""


def _not_made(row: Row, problem: str) -> Row:
    return {**row, "problem": problem, "made": False}


def _read(row: Row, original: bytes | None) -> tuple[RGB, Row]:
    """The picture that is cut, and what the made row says of its original."""
    if original is None:
        raise _NotMadeError("missing: no such file at that commit")
    digest = sha256_of(original)
    if digest != (row.get("original_sha256") or digest):
        raise _NotMadeError("different: the original has other bytes")
    try:
        rgb = decode(original)
    except ImageError as error:
        raise _NotMadeError(f"missing: {error}") from error
    # A manifest that was written here knows it; the bytes are the same.
    known = row.get("look") if row.get("original_sha256") else None
    kind, seen = _seen(original, rgb, known or None)
    if trim := float(row.get("trim") or 0.0):
        rgb = rgb[: round(rgb.shape[0] * (1 - trim))]
    height, width = rgb.shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise _NotMadeError(f"{_TOO_SMALL}, {width} x {height}")
    return rgb, {
        "original_sha256": digest,
        "original_format": kind,
        "original_width": width,
        "original_height": height,
        "original_bytes": len(original),
        "look": seen,
    }


def _seen(original: bytes, rgb: RGB, known: str | None) -> tuple[str | None, str]:
    """Format and look of a picture as its file is opened, or as it was decoded."""
    kind = readable_kind(original)
    try:
        with open_picture(original) as image:
            kind = image.format
            return kind, known or look(image)
    except Exception:  # Pillow alone doesn't read all that `decode` does
        return kind, known or look(Image.fromarray(rgb))


def _reconstructed(name: str, pixels: RGB, reconstruct: Reconstruct | None) -> RGB:
    if reconstruct is None:
        raise _NotMadeError(f"missing: no autoencoder {name} was given")
    try:
        return reconstruct(name, pixels)
    except ValueError as error:
        raise _NotMadeError(f"missing: {error}") from error


def _free_path(row: Row, own: str, sha256: str, taken: dict[str, str]) -> str:
    """The row's path for the crop of that hash, or the first of its own that no other one has.

    One crop with two labels or in two splits is two.
    """
    crop = f"{sha256} {row['label']} {row.get('split') or ''}"
    stem = f"{row['label']}/{row['repository'].replace('/', '+')}/{own}"
    others = (f"{stem}.{number}.jpg" for number in itertools.count(2))
    paths = [row["path"]] if row.get("path") else itertools.chain([f"{stem}.jpg"], others)
    path = next((one for one in paths if taken.get(one, crop) == crop), None)
    if path is None:
        raise _NotMadeError(f"different: another row's crop has the path {row['path']}")
    taken[path] = crop
    return path


def _as_near(row: Row, made: Row) -> bool:
    """Whether a reconstruction is the stated one but for another machine's rounding."""
    stated = row.get("psnr")
    if made.get("psnr") is None or stated in (None, ""):
        return False
    return abs(float(stated) - float(made["psnr"])) <= PSNR_TOLERANCE


def _cut_of(row: Row, original_sha256: str, width: int, height: int, crop: int) -> Cut:
    """What the row states of its cut, the default procedure for the rest.

    Raises:
        ValueError: a value that can't be meant; the message names its column.
    """
    stated: Row = {}
    for name, (read, wanted) in _STATED.items():
        value = row.get(name)
        if value in (None, "") or value != value:
            continue
        try:
            stated[name] = read(value)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"{name} is {brief(str(value))}: give {wanted}") from None
    default = default_cut(original_sha256, width, height, crop, scale=stated.get("scale"))
    return replace(default, **stated)


def _scale(value: Any) -> float:
    scale = float(value)
    if not 0 < scale <= 1:
        raise ValueError
    return scale


def _kernel(value: Any) -> str:
    if value not in KERNELS:
        raise ValueError
    return str(value)


def _box(value: Any) -> tuple[int, int, int, int]:
    numbers = value if isinstance(value, list) else str(value).strip("[]() ").split(",")
    left, top, right, bottom = (int(float(number)) for number in numbers)
    return left, top, right, bottom


def _whole(allowed: range, value: Any) -> int:
    number = int(float(value))  # Tables in text may have 90.0 for 90.
    if number not in allowed:
        raise ValueError
    return number


_STATED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "scale": (_scale, "a number above 0, at most 1"),
    "kernel": (_kernel, f"one of {', '.join(KERNELS)}"),
    "box": (_box, "left,top,right,bottom in pixels"),
    "jpeg_quality": (partial(_whole, range(1, 101)), "a number from 1 to 100"),
    "jpeg_subsampling": (partial(_whole, range(3)), "0 for 4:4:4, 1 for 4:2:2 or 2 for 4:2:0"),
}
"""Columns that say how a crop is cut: how each is read, and what may stand there."""


def _make_repository(
    rows: list[Row], clones: Path, out: Path, part: Path, reconstruct: Reconstruct | None
) -> list[Row]:
    git = find_clone(clones, rows[0]["repository"])
    if git is None:
        return [_not_made(row, "missing: no clone of the repository") for row in rows]
    taken: dict[str, str] = {}
    done = [
        _made(row, blob, out, reconstruct, taken)
        for row, blob in zip(rows, _originals(git, rows), strict=True)
    ]
    part.parent.mkdir(parents=True, exist_ok=True)
    write_json(part, {"asked": _fingerprint(rows, reconstruct), "rows": done})
    return done


def _originals(git: Path, rows: list[Row]) -> Iterator[bytes | None]:
    """The bytes that each row names, by the first spelling of its path that is there."""
    named = [
        [f"{row['commit']}:{path}" for path in spellings(str(row["original_path"]))] for row in rows
    ]
    blobs = read_blobs(git, itertools.chain.from_iterable(named))
    for names in named:
        found = list(itertools.islice(blobs, len(names)))
        yield next((blob for blob in found if blob is not None), None)


def _made(row: Row, *given: Any) -> Row:
    """`make_row`, whose row alone is lost by values that mean nothing."""
    try:
        return make_row(row, *given)
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in _OF_A_PATH:
            raise  # a full disk is every row's
        return _not_made(row, f"missing: {words_of(error)}")


_OF_A_PATH = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
"""What the system says where a row states a path that can be no file's."""


def _fingerprint(rows: list[Row], reconstruct: Reconstruct | None) -> str:
    asked: list[Any] = rows
    if any(row.get("reconstruction") for row in rows):
        # A function's name, or that of the class whose instance is called.
        named: Any = reconstruct if hasattr(reconstruct, "__qualname__") else type(reconstruct)
        asked = [rows, f"{named.__module__}.{named.__qualname__}"]
    return sha256_of(json.dumps(asked, sort_keys=True).encode())


def _finished(part: Path, asked: str, out: Path) -> list[Row] | None:
    """What an earlier run made of the same, if it is all there still, to the byte.

    What it missed may be there now: the file, a package that reads it, memory.
    """
    try:
        content = json.loads(part.read_text())
        if content["asked"] != asked:
            return None
        done: list[Row] = content["rows"]
        problems = [row["problem"] for row in done]
        if any(p.startswith("missing: ") and not p.startswith(_TOO_SMALL) for p in problems):
            return None
        made = (row for row in done if row["made"])
        whole = all(sha256_of((out / row["path"]).read_bytes()) == row["sha256"] for row in made)
        return done if whole else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class Rebuilt:
    """What a run came to."""

    table: pd.DataFrame
    """One row per crop, every column filled; written to `out`/manifest.parquet."""
    problems: list[tuple[str, str, str]]
    """Repository, path and reason of each row that wasn't made, or came out different."""

    def __str__(self) -> str:
        kinds = Counter(problem.split(":")[0] for _, _, problem in self.problems)
        made = len(self.table)
        return f"{made} made, {kinds['missing']} missing, {kinds['different']} different"


def read_sources(manifest: Path) -> pd.DataFrame:
    """A manifest of originals: the columns `NEEDED` and any that say how a crop is cut.

    Raises:
        ManifestError: unreadable, a needed column is missing, a path leads out of the folder that
            is written or is that of `MANIFEST` and the like, or two repositories state one.
    """
    table = read_columns(manifest, set(NEEDED), "manifest")
    table["label"] = translate_labels(table["label"], str(manifest))
    if "path" in table:
        table["path"] = table["path"].map(text_of_bytes)
        stated = table[table["path"].notna() & (table["path"] != "")]
        outside = [path for path in stated["path"] if not _is_below(path)]
        if outside:
            raise ManifestError(
                f"{manifest}: {brief(str(outside[0]))} is no path below the output, or is taken"
            )
        # `./a` and `a` are one file.
        stated = stated.assign(path=[PurePosixPath(path).as_posix() for path in stated["path"]])
        table.loc[stated.index, "path"] = stated["path"]
        shared = stated.groupby("path")["repository"].nunique() > 1
        if shared.any():
            raise ManifestError(
                f"{manifest}: crops of two repositories have the path {brief(shared.idxmax())}"
            )
    return table


def _is_below(path: object) -> bool:
    if not isinstance(path, str):
        return False
    plain = PurePosixPath(path.replace("\\", "/"))
    outside = plain.is_absolute() or PureWindowsPath(path).drive or ".." in plain.parts
    return not outside and plain.parts[:1] not in {(MANIFEST,), (PROBLEMS,), (PARTS,)}


def rebuild(
    manifest: Path,
    clones: Path,
    out: Path,
    *,
    reconstruct: Reconstruct | None = None,
    workers: int | None = None,
    progress: DoneOf | None = None,
) -> Rebuilt:
    """Make the crops of a manifest below `out`, and `out`/manifest.parquet.

    Resumable: a repository that an earlier run finished is not read again, unless something of
    it was missing, or `reconstruct` has another name. Hashes that the manifest states are
    verified. `reconstruct` is by default that of the tiny autoencoders, from their clone below
    `clones`. `progress(done, all)` counts rows.

    Raises:
        ModuleNotFoundError: the manifest has reconstructions, and torch is missing.
        ManifestError: the manifest can't be read, is the one that is written, or nothing of it
            could be made.
    """
    if manifest.resolve() in {(out / name).resolve() for name in (MANIFEST, PROBLEMS)}:
        raise ManifestError(f"{manifest} is read, and would be written over: give another folder")
    table = read_sources(manifest)
    rows_of = {
        str(name): json.loads(group.to_json(orient="records"))
        for name, group in table.groupby("repository", sort=True)
    }
    if reconstruct is None and "reconstruction" in table and table["reconstruction"].any():
        from distildire.data.tiny_autoencoder import TinyAutoencoders

        reconstruct = TinyAutoencoders(clones)
    done: list[Row] = []
    waiting: dict[str, Path] = {}
    for name, rows in rows_of.items():
        part = out / PARTS / f"{name.replace('/', '+')}.json"
        finished = _finished(part, _fingerprint(rows, reconstruct), out)
        if finished is None:
            waiting[name] = part
        else:
            done += finished
    if progress is not None:
        progress(len(done), len(table))
    # The longest first, so that no worker is left with a large one at the end.
    order = sorted(waiting, key=lambda name: -len(rows_of[name]))
    with ProcessPoolExecutor(workers or usable_cores()) as pool:
        jobs = [
            pool.submit(_make_repository, rows_of[n], clones, out, waiting[n], reconstruct)
            for n in order
        ]
        for job in as_completed(jobs):
            done += job.result()
            if progress is not None:
                progress(len(done), len(table))
    return _collect(done, out, manifest)


def _collect(done: list[Row], out: Path, manifest: Path) -> Rebuilt:
    import pandas as pd

    problems = [(r["repository"], r["original_path"], r["problem"]) for r in done if r["problem"]]
    ours = {"problem", "made"}
    made = [{k: v for k, v in row.items() if k not in ours} for row in done if row["made"]]
    if not made:
        first = problems[0][2] if problems else "it has no rows"
        raise ManifestError(f"{manifest}: nothing could be made ({first})")
    table = pd.DataFrame(made).drop_duplicates("path")
    first_columns = ["path", "label"]
    table = table[first_columns + [c for c in table if c not in first_columns]]
    table = table.sort_values("path").reset_index(drop=True)
    with whole_file(out / MANIFEST) as file:
        table.to_parquet(file, index=False)
    if problems:
        lines = pd.DataFrame(problems, columns=["repository", "original_path", "problem"])
        lines.to_csv(out / PROBLEMS, index=False)
    else:
        (out / PROBLEMS).unlink(missing_ok=True)
    assert set(table["label"]) <= {REAL, FAKE}
    return Rebuilt(table, problems)
