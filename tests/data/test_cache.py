"""The cache against direct computation, and against what interrupts it."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from distildire.data import cache as module
from distildire.data.cache import (
    CacheError,
    CacheOptions,
    NativeSize,
    NoiseCache,
    cache_settings,
    fill_cache,
    open_dire,
)
from distildire.io.pictures import decode
from distildire.io.preprocessing import resize_and_crop
from distildire.noise import NoiseSource
from distildire.noise.schedule import linear_alpha_bar


class Blur(nn.Module):
    """A deterministic stand-in for a UNet; counts the pictures it was shown."""

    def __init__(self, gain: float = 0.3) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen = 0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.seen += len(x_t)
        # One rounding per pixel: equal to the bit whatever the batch and its memory layout.
        return self.gain * x_t


def make_source(gain: float = 0.3, multiple: int = 1) -> NoiseSource:
    return NoiseSource(Blur(gain), linear_alpha_bar(), name="blur", multiple=multiple)


def seen(source: NoiseSource) -> int:
    return int(source.network.seen)  # type: ignore[arg-type]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(3)
    paths = []
    for i, (height, width) in enumerate([(40, 48), (40, 48), (33, 64), (40, 48), (64, 33)]):
        path = tmp_path / f"{i}.{'png' if i % 2 else 'jpg'}"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def tensor(path: Path) -> Tensor:
    return torch.from_numpy(decode(path)).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def test_arrays_equal_direct_computation(pictures: list[Path], tmp_path: Path) -> None:
    source = make_source()
    for dire in (False, True):  # into one cache, as earlier versions filled it
        calls: list[tuple[int, int]] = []
        report = fill_cache(
            [*pictures, pictures[0]],
            source,
            tmp_path / "c",
            CacheOptions(dire=dire, batch=4),
            progress=lambda *done: calls.append(done),  # noqa: B023
        )
        assert (report.computed, report.present, report.failed) == (5, 0, [])
        assert calls[-1] == (5, 5)
    cache = NoiseCache(tmp_path / "c")
    read_dire = pickle.loads(pickle.dumps(open_dire(tmp_path / "c")))
    for path in pictures:
        eps0, dire = cache.eps0(path), cache.dire(path)
        assert eps0 is not None
        assert dire is not None
        assert eps0.dtype == np.float32
        assert dire.dtype == np.uint8
        # Lossless: the very floats.
        np.testing.assert_array_equal(eps0, source.eps0(tensor(path)).numpy())
        direct = source.dire(tensor(path)).numpy() * 255
        assert np.abs(dire - direct).max() < 1e-3
        np.testing.assert_array_equal(read_dire(str(path)), dire[0].transpose(1, 2, 0))


def test_second_run_computes_nothing_and_changes_are_noticed(
    pictures: list[Path], tmp_path: Path
) -> None:
    fill_cache(pictures, make_source(), tmp_path / "c")
    again = make_source()
    assert fill_cache(pictures, again, tmp_path / "c").present == 5
    assert seen(again) == 0

    stamp = pictures[1].stat()
    changed = np.asarray(Image.open(pictures[1])).copy()
    changed[0, 0] ^= 1
    Image.fromarray(changed).save(pictures[1])
    os.utime(pictures[1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert NoiseCache(tmp_path / "c").eps0(pictures[1]) is None
    assert fill_cache(pictures, again, tmp_path / "c").computed == 1
    # DIRE alone: one step up and one back, twice.
    before = seen(again)
    fill_cache(pictures[:1], again, tmp_path / "d", CacheOptions(dire=True, steps=2))
    assert seen(again) - before == 4
    assert NoiseCache(tmp_path / "d").eps0(pictures[0]) is None
    assert NoiseCache(tmp_path / "d").dire(pictures[0], steps=2) is not None

    other = make_source(gain=0.31)
    assert fill_cache(pictures, other, tmp_path / "c").computed == 5
    assert fill_cache(pictures, other, tmp_path / "c", prepare=resize_and_crop(32)).computed == 5
    with pytest.raises(CacheError, match="holds 3 settings"):
        NoiseCache(tmp_path / "c")
    chosen = NoiseCache(tmp_path / "c", cache_settings(other, resize_and_crop(32)))
    eps0 = chosen.eps0(pictures[4])
    assert eps0 is not None
    assert eps0.shape == (1, 3, 32, 32)


def test_broken_pictures_are_reported_and_the_rest_goes_on(
    pictures: list[Path], tmp_path: Path
) -> None:
    pictures[2].write_bytes(pictures[2].read_bytes()[:100])
    report = fill_cache([*pictures, tmp_path / "absent.png"], make_source(), tmp_path / "c")
    assert report.computed == 4
    assert [Path(path).name for path, _ in report.failed] == ["2.jpg", "absent.png"]


def test_native_size_is_cut_to_what_the_network_takes(pictures: list[Path], tmp_path: Path) -> None:
    fill_cache(pictures, make_source(multiple=32), tmp_path / "c")
    eps0 = NoiseCache(tmp_path / "c").eps0(pictures[4])
    assert eps0 is not None
    assert eps0.shape == (1, 3, 64, 32)
    rgb = decode(pictures[4])
    np.testing.assert_array_equal(NativeSize(32)(rgb)[0], rgb[:, :32])


def wait_in_the_third(source: NoiseSource, go_on: int) -> None:
    if seen(source) == 3:
        os.read(go_on, 1)


def test_killed_run_goes_on_where_it_was(pictures: list[Path], tmp_path: Path) -> None:
    started = time.monotonic()
    go_on, never = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(never)
            slow = make_source()
            slow.network.register_forward_hook(lambda *_: wait_in_the_third(slow, go_on))
            fill_cache(pictures, slow, tmp_path / "c", CacheOptions(batch=1))
        finally:
            os._exit(1)
    while len(list((tmp_path / "c").glob("*/*/*.npy"))) < 2:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended"
        assert time.monotonic() - started < 300
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(go_on)
    os.close(never)
    done = sorted((tmp_path / "c").glob("*/*/*.npy"))
    assert len(done) == 2
    # What a crash of the machine may leave: an array cut short, and a stale temporary file.
    done[0].write_bytes(done[0].read_bytes()[:200])
    stale = done[0].with_name(".x.eps0.npy.1.tmp")
    stale.touch()
    os.utime(stale, (0, 0))

    source = make_source()
    report = fill_cache(pictures, source, tmp_path / "c")
    assert (report.present, report.computed) == (len(done) - 1, 5 - len(done) + 1)
    assert not stale.exists()
    cache = NoiseCache(tmp_path / "c")
    for path in pictures:
        np.testing.assert_array_equal(cache.eps0(path), source.eps0(tensor(path)).numpy())


def test_full_disk_is_named_and_leaves_nothing_half_written(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0

    def save(file: Any, array: Any) -> None:
        nonlocal written
        written += 1
        if written > 2:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        np.lib.format.write_array(file, array)

    monkeypatch.setattr(module.np, "save", save)
    with pytest.raises(CacheError, match="the disk is full"):
        fill_cache(pictures, make_source(), tmp_path / "c", CacheOptions(batch=1))
    monkeypatch.undo()
    assert not list((tmp_path / "c").rglob("*.tmp"))
    report = fill_cache(pictures, make_source(), tmp_path / "c")
    assert (report.present, report.computed) == (2, 3)


def test_no_cache_there(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no noise cache"):
        open_dire(tmp_path)
