import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from packed.pack import KEPT, SIDE, parts_of
from packed.train import read_parts, run
from packed.views import ViewMaker, jpeg
from PIL import Image

from distildire.data.augment import AugmentConfig
from distildire.distill.checkpoint import load_checkpoint
from distildire.distill.config import (
    DataConfig,
    OptimConfig,
    StudentConfig,
    TeacherConfig,
    TrainConfig,
)
from distildire.io.preprocessing import Preprocessing


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    """Smooth colours, [side, side, 3]."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("quality", [40, 75, 92])
def test_jpeg_is_that_of_pillow(quality: int, subsampling: int) -> None:
    rgb = picture(0, 200)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    pillow = np.asarray(Image.open(buffer)).astype(float)
    x = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float()
    ours = jpeg(x, torch.tensor([float(quality)]), torch.tensor([subsampling == 2]))
    ours = ours[0].permute(1, 2, 0).numpy()

    def psnr(a: np.ndarray, b: np.ndarray) -> float:
        return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))

    assert psnr(ours, pillow) > 40
    assert psnr(ours, pillow) > psnr(rgb.astype(float), pillow)


def test_views_are_drawn_by_the_seed() -> None:
    stored = torch.from_numpy(np.stack([picture(n) for n in range(6)])).permute(0, 3, 1, 2)

    def views(seed: int) -> torch.Tensor:
        config = AugmentConfig(blur=0.5, noise=0.5, orient=1.0, resample=0.5, sharpen=0.5)
        return ViewMaker(192, config, torch.Generator().manual_seed(seed))(stored)

    assert views(0).shape == (6, 3, 192, 192)
    assert views(0).dtype == torch.uint8
    assert torch.equal(views(0), views(0))
    assert not torch.equal(views(0), views(1))


def test_packs_train_a_student(tmp_path: Path) -> None:
    rows = []
    for n in range(24):
        path = tmp_path / f"{n}.png"
        Image.fromarray(picture(n, 300)).save(path)
        row = dict.fromkeys(KEPT, "") | {"path": str(path), "label": ("real", "fake")[n % 2]}
        rows.append(row | {"split": ("train", "val")[n % 3 == 0], "source": f"s{n % 4}"})
    (part,) = parts_of(pd.DataFrame(rows), quality=90, limit=2**20)
    part.to_parquet(tmp_path / "part-00.parquet")
    table, images = read_parts([tmp_path / "part-00.parquet"])
    assert images.shape == (24, 3, SIDE, SIDE)
    off = images[5].transpose(1, 2, 0).astype(float) - np.asarray(
        Image.fromarray(picture(5, 300)).resize((SIDE, SIDE), Image.Resampling.LANCZOS), float
    )
    assert np.abs(off).mean() < 4
    config = TrainConfig(
        data=DataConfig(split="train", val_split="val", max_share=1.0),
        preprocessing=Preprocessing(crop=64, crops=0, halves=2),
        student=StudentConfig(backbone="resnet18", stage=1, inputs="image"),
        teacher=TeacherConfig(backbone=""),
        optim=OptimConfig(batch=4, warmup=1),
    )
    best = run(config, table, images, tmp_path / "run", 2.0, validations=1)
    assert best["step"] >= 1
    _, saved, facts = load_checkpoint(tmp_path / "run/best.pt")
    assert saved.optim.steps == facts["step"] == best["step"]
