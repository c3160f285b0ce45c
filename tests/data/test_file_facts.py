"""Facts of files that were saved with known settings."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from data.grainy import picture
from distildire.data.file_facts import read_facts, trace


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 90, 100])
@pytest.mark.parametrize("subsampling", [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_quality_and_chroma_are_read_back(quality: int, subsampling: tuple[int, str]) -> None:
    buffer = io.BytesIO()
    image = picture(np.random.default_rng(0))
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling[0])
    facts = read_facts(buffer.getvalue())
    assert (facts.quality, facts.standard_tables) == (quality, True)
    assert facts.subsampling == subsampling[1]


def test_other_tables_give_the_nearest_quality() -> None:
    buffer = io.BytesIO()
    tables = [[8] * 64, [8] * 64]
    picture(np.random.default_rng(0)).save(buffer, "JPEG", qtables=tables)
    facts = read_facts(buffer.getvalue())
    assert not facts.standard_tables
    assert 80 <= facts.quality <= 95


def test_upscaling_leaves_a_peak() -> None:
    rng = np.random.default_rng(0)
    native = rng.integers(0, 256, (256, 256), dtype=np.uint8)
    small = Image.fromarray(native[:150, :150])
    large = np.asarray(small.resize((256, 256), Image.Resampling.BILINEAR))
    assert trace(large)[0] > 3 * trace(native)[0]
    assert trace(large)[2] < trace(native)[2]
