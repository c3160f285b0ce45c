"""eps0 or DIRE on disk: computed once for each picture's content, exact, safe to interrupt.

A cache is a folder. Each combination of weights, precision and preprocessing has its own
subfolder, named by their hash, with a `settings.json`; in it one array per picture, named by
the SHA-256 of the picture's file: `<hash>.eps0.npy` (float32 [crops, 3, H, W]) and
`<hash>.dire20.npy` (uint8, same shape; 20 is the number of DDIM steps). Arrays appear whole
or not at all, so that any number of workers may read and write at once.

Training reads DIRE (`open_dire`) and computes eps0 itself, after augmentation; stored eps0 is
for programs of one's own, which read it with `NoiseCache`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distildire.io.hashing import sha256_of
from distildire.io.pictures import RGB, ImageError, decode_bytes, read_bytes
from distildire.io.preprocessing import Preprocessing, resize_and_crop
from distildire.io.progress import DoneOf
from distildire.io.writing import whole_file, write_json

if TYPE_CHECKING:
    from distildire.noise.source import NoiseSource

log = logging.getLogger(__name__)

STALE_SECONDS = 3600
"""Temporary files older than this were left by a killed run."""


class CacheError(ValueError):
    """A cache that can't be read or written; the message says what to do."""


@dataclass(frozen=True)
class NativeSize:
    """No resampling: the central part whose sides are multiples of what the network needs."""

    multiple: int = 1

    def __call__(self, rgb: RGB) -> NDArray[np.uint8]:
        """RGB [H, W, 3] -> uint8 [1, h, w, 3], h and w the largest multiples that fit."""
        height, width = (side - side % self.multiple for side in rgb.shape[:2])
        if not height or not width:
            raise ImageError(
                f"too small: {rgb.shape[1]} x {rgb.shape[0]} pixels, the network needs at least "
                f"{self.multiple} a side"
            )
        top, left = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
        return rgb[None, top : top + height, left : left + width]


Prepare: TypeAlias = Preprocessing | NativeSize
"""RGB [H, W, 3] -> uint8 [crops, h, w, 3]."""


def default_preparation(source: NoiseSource) -> Prepare:
    """The size the network was trained on where known, else the picture's own."""
    if source.image_size:
        return resize_and_crop(source.image_size)
    return NativeSize(source.multiple)


@dataclass(frozen=True)
class CacheOptions:
    """What `fill_cache` computes, and how."""

    dire: bool = False
    """DIRE in the place of eps0, at 2 x `steps` passes per picture."""
    steps: int = 20
    """DDIM steps each way."""
    batch: int = 8
    """Pictures per pass."""


@dataclass
class CacheReport:
    """What a run of `fill_cache` did, in pictures."""

    computed: int = 0
    present: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of pictures that can't be read."""

    @property
    def done(self) -> int:
        """Pictures dealt with."""
        return self.computed + self.present + len(self.failed)


class NoiseCache:
    """The arrays of one setting; cheap to make, and picklable for data-loading workers."""

    def __init__(self, folder: str | Path, settings: dict[str, Any] | None = None) -> None:
        """Open a cache.

        Args:
            folder: the cache folder.
            settings: as `cache_settings` gives; by default those of the only subfolder.

        Raises:
            CacheError: nothing cached there, or several settings and none chosen.
        """
        self.root = Path(folder)
        if settings is None:
            settings = _only_settings(self.root)
        self.settings = settings
        self.folder = self.root / settings_hash(settings)[:16]

    def place(self, sha256: str, kind: str) -> Path:
        """Where the array of a picture lies; `kind` is "eps0" or "dire<steps>"."""
        return self.folder / sha256[:2] / f"{sha256}.{kind}.npy"

    def has(self, sha256: str, kind: str) -> bool:
        """Whether the array is there and whole."""
        return self._open(sha256, kind) is not None

    def eps0(self, path: str | Path) -> NDArray[np.float32] | None:
        """eps0 float32 [crops, 3, H, W] of the picture as it is on disk now; None if absent."""
        return self._open(sha256_of(read_bytes(Path(path))), "eps0")

    def dire(self, path: str | Path, steps: int = 20) -> NDArray[np.uint8] | None:
        """DIRE uint8 [crops, 3, H, W] (255 stands for a difference of 2); None if absent."""
        return self._open(sha256_of(read_bytes(Path(path))), f"dire{steps}")

    def _open(self, sha256: str, kind: str) -> NDArray[Any] | None:
        # Opening as a map checks the header against the file's size: an array that a full
        # disk or a crash of the machine cut short counts as absent.
        try:
            array: NDArray[Any] = np.load(self.place(sha256, kind), mmap_mode="r")
        except (FileNotFoundError, ValueError, EOFError):
            return None
        return array

    def write(self, sha256: str, kind: str, array: NDArray[Any]) -> None:
        """Write an array whole or not at all.

        Raises:
            CacheError: full disk, or a folder that can't be written.
        """
        place = self.place(sha256, kind)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(place) as file:
                np.save(file, array)
        except OSError as error:
            raise _cannot_write(self.root, array.nbytes, error) from error

    def start(self) -> None:
        """Record the settings, and sweep up what a killed run left half written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "settings.json", self.settings)
        except OSError as error:
            raise _cannot_write(self.root, 4096, error) from error
        for left in self.folder.glob("??/.*.tmp"):
            try:
                if time.time() - left.stat().st_mtime > STALE_SECONDS:
                    left.unlink()
            except FileNotFoundError:
                continue  # another run's sweep was faster


@dataclass(frozen=True)
class DireReader:
    """Reads DIRE maps, and brings their pictures to the same pixels; picklable."""

    cache: NoiseCache
    prepare: Prepare
    """The preprocessing that the maps were computed after."""
    steps: int = 20

    def __call__(self, path: str) -> RGB:
        """The map of a picture's first crop, uint8 [h, w, 3].

        Raises:
            CacheError: no DIRE of that picture as it is now.
        """
        crops = self.cache.dire(path, self.steps)
        if crops is None:
            raise CacheError(
                f"{path}: no DIRE of it in {self.cache.root}, or the picture has changed since; "
                "run `distildire noise --dire` again"
            )
        return np.ascontiguousarray(crops[0].transpose(1, 2, 0))

    def align(self, rgb: RGB) -> RGB:
        """The pixels of a decoded picture [H, W, 3] that its map belongs to: [h, w, 3]."""
        pixels: RGB = self.prepare(rgb)[0]
        return pixels


def open_dire(folder: str | Path, steps: int = 20) -> DireReader:
    """A reader of the DIRE maps in a cache.

    Raises:
        CacheError: no cache there, or one of several settings.
    """
    cache = NoiseCache(folder)
    return DireReader(cache, preparation_of(cache.settings), steps)


def preparation_of(settings: dict[str, Any]) -> Prepare:
    """The preprocessing that a cache's settings name, as `cache_settings` wrote it.

    Raises:
        CacheError: a preprocessing of another program, or of an earlier version of this one.
    """
    kinds: dict[str, type[Preprocessing | NativeSize]] = {
        kind.__name__: kind for kind in (Preprocessing, NativeSize)
    }
    stored = settings.get("preprocessing")
    try:
        ((name, options),) = stored.items()  # type: ignore[union-attr]
        return kinds[name](**options)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CacheError(
            f"the cache's preprocessing {stored} is unknown: run `distildire noise` again"
        ) from None


def cache_settings(source: NoiseSource, prepare: Prepare) -> dict[str, Any]:
    """What the arrays depend on beside the picture: weights, precision, preprocessing."""
    return {
        "source": source.name,
        "weights_sha256": source.weights_hash,
        "dtype": str(source.dtype).removeprefix("torch."),
        "clip": source.clip,
        "preprocessing": {type(prepare).__name__: asdict(prepare)},
    }


def settings_hash(settings: dict[str, Any]) -> str:
    """SHA-256 of the settings; the source's name is for people and doesn't count."""
    keyed = {key: value for key, value in settings.items() if key != "source"}
    return hashlib.sha256(json.dumps(keyed, sort_keys=True).encode()).hexdigest()


def fill_cache(
    paths: Iterable[str | Path],
    source: NoiseSource,
    folder: str | Path,
    options: CacheOptions | None = None,
    *,
    prepare: Prepare | None = None,
    progress: DoneOf | None = None,
) -> CacheReport:
    """Compute eps0, or DIRE if asked, of every picture that has none in the cache yet.

    Every file is hashed anew, so that a changed picture is recomputed. At most one batch of
    pictures is in memory; those of equal size go through the network together.

    Args:
        paths: the pictures.
        source: the network; on whatever device it sits.
        folder: the cache.
        options: see there; the defaults where None.
        prepare: preprocessing, by default `default_preparation(source)`.
        progress: hears of the pictures done.

    Raises:
        CacheError: full or unwritable disk. What was written stays, and a new run goes on.
    """
    options = options or CacheOptions()
    if options.batch < 1:
        raise ValueError(f"batch is {options.batch}: give at least 1")
    prepare = prepare or default_preparation(source)
    cache = NoiseCache(folder, cache_settings(source, prepare))
    cache.start()
    kind = f"dire{options.steps}" if options.dire else "eps0"
    files = list(dict.fromkeys(str(path) for path in paths))
    report = CacheReport()
    waiting: _Waiting = {}

    def flush() -> None:
        for group in _of_equal_shape(waiting):
            _compute(group, source, cache, kind, options)
        report.computed += len(waiting)
        waiting.clear()
        if progress is not None:
            progress(report.done, len(files))

    for path in files:
        try:
            data = read_bytes(Path(path))
            sha256 = sha256_of(data)
            if sha256 not in waiting and not cache.has(sha256, kind):
                waiting[sha256] = prepare(decode_bytes(data))
                if len(waiting) == options.batch:
                    flush()
                continue
            report.present += 1
        except ImageError as error:
            report.failed.append((path, str(error)))
        if progress is not None:
            progress(report.done, len(files))
    flush()
    for path, reason in report.failed:
        log.warning("%s: %s", path, reason)
    return report


_Waiting: TypeAlias = dict[str, NDArray[np.uint8]]
"""Crops [crops, h, w, 3] by the hash of their file."""


def _of_equal_shape(waiting: _Waiting) -> Iterator[_Waiting]:
    groups: dict[tuple[int, ...], _Waiting] = {}
    for sha256, crops in waiting.items():
        groups.setdefault(crops.shape, {})[sha256] = crops
    yield from groups.values()


def _compute(
    group: _Waiting, source: NoiseSource, cache: NoiseCache, kind: str, options: CacheOptions
) -> None:
    """Run one group of pictures of equal shape, and write each one's array."""
    import torch

    from distildire.noise.schedule import to_unit

    stacked = np.concatenate(list(group.values()))
    pixels = torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))
    x0 = to_unit(pixels.to(source.device))
    if options.dire:
        array = (source.dire(x0, options.steps) * 255.0).round().to(torch.uint8).cpu().numpy()
    else:
        array = source.eps0(x0).cpu().numpy()
    for sha256, part in zip(group, np.split(array, len(group)), strict=True):
        cache.write(sha256, kind, part)


def _only_settings(root: Path) -> dict[str, Any]:
    found = sorted(root.glob("*/settings.json"))
    if not found:
        raise CacheError(f"{root}: no noise cache; fill one with `distildire noise`")
    if len(found) > 1:
        raise CacheError(
            f"{root}: holds {len(found)} settings ({', '.join(f.parent.name for f in found)}); "
            "say which source and preprocessing is meant"
        )
    content: dict[str, Any] = json.loads(found[0].read_text())
    return content


def _cannot_write(root: Path, needed: int, error: OSError) -> CacheError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    reason = "the disk is full" if full else f"cannot be written ({error.strerror or error})"
    return CacheError(
        f"{root}: {reason}; the next array needs {needed:,} bytes. What is cached stays: make "
        "room and run the same command again"
    )
