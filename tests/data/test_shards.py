"""Training from tar shards: the same rows, pictures and batches as from loose files."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from distildire.data.augment import AugmentConfig
from distildire.data.cache import fill_cache
from distildire.data.manifest import ManifestError, read_manifest
from distildire.data.stream import Draws, TrainingStream, Views, sampling_weights
from distildire.distill.config import DataConfig, TrainConfig
from distildire.distill.split import read_split
from distildire.io.pictures import ImageError, decode, read_bytes
from distildire.noise import load_noise_source


def pack(tar: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(tar, "w") as shard:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    rgb = np.random.default_rng(seed).integers(0, 256, (80, 90, 3), np.uint8)
    Image.fromarray(rgb).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """Twelve files of two sources and both classes, with their manifest."""
    rows = []
    (tmp_path / "files").mkdir()
    for n in range(12):
        name = f"{n:02d}.v1.png"
        (tmp_path / "files" / name).write_bytes(png(n))
        rows.append((f"files/{name}", ("real", "fake")[n % 2], "train", "", f"s{n % 4}"))
    names = ["path", "label", "split", "generator", "source"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "loose.csv", index=False)
    return tmp_path / "loose.csv"


@pytest.fixture
def shards(loose: Path) -> str:
    """The same pictures in three shards, each with a .json beside it."""
    table = pd.read_csv(loose, keep_default_na=False)
    for shard in range(3):
        files: dict[str, bytes] = {}
        for row in table.iloc[4 * shard : 4 * shard + 4].to_dict("records"):
            name = "./" * (shard == 1) + row.pop("path")
            files[name] = (loose.parent / name).read_bytes()
            files[name.replace(".v1.png", ".json")] = json.dumps({**row, "more": [1]}).encode()
        pack(loose.parent / f"train-{shard:04d}.tar", files)
    return str(loose.parent / "train-{0000..0002}.tar")


def stream(table: pd.DataFrame, length: int = 24) -> TrainingStream:
    weights = sampling_weights(table, power=0.5, max_share=0.5)
    return TrainingStream(table, weights, Views(32, AugmentConfig()), Draws(length, seed=5))


def test_shards_are_a_manifest_of_the_same_rows(loose: Path, shards: str) -> None:
    files, packed = read_manifest(loose), read_manifest(shards)
    columns = ["label", "split", "generator", "source"]
    pd.testing.assert_frame_equal(packed[columns], files[columns])
    assert set(packed.columns) == {"path", *columns}
    for a, b in zip(files["path"], packed["path"], strict=True):
        assert b.endswith(f".tar::files/{Path(a).name}")
        assert read_bytes(Path(b)) == Path(a).read_bytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_loose_files(loose: Path, shards: str, workers: int) -> None:
    loaders = [
        DataLoader(stream(read_manifest(source)), 8, num_workers=workers)
        for source in (str(loose), shards)
    ]
    batches = [list(loader) for loader in loaders]
    assert len(batches[0]) == 3
    for (crops, labels), (packed_crops, packed_labels) in zip(*batches, strict=True):
        assert torch.equal(crops, packed_crops)
        assert torch.equal(labels, packed_labels)


def test_a_manifest_may_name_members(loose: Path, shards: str) -> None:
    table = read_manifest(shards)
    names = [path.rpartition("/train-")[2] for path in table["path"]]
    listed = loose.parent / "members.csv"
    table.assign(path=[f"train-{name}" for name in names]).to_csv(listed, index=False)
    again = read_manifest(listed)
    assert again["path"].to_list() == table["path"].to_list()
    assert np.array_equal(decode(again["path"][5]), decode(loose.parent / "files/05.v1.png"))


def test_classes_alone_are_labels(tmp_path: Path) -> None:
    pack(tmp_path / "s.tar", {"a.png": png(0), "a.cls": b"1", "b.png": png(1), "b.cls": b"0\n"})
    assert read_manifest(tmp_path / "s.tar")["label"].to_list() == ["fake", "real"]


def test_notes_of_no_picture_are_passed_over(tmp_path: Path) -> None:
    files = {"a.png": png(0), "a.cls": b"1", "__stats__.json": b"[1, 2]", "b.cls": b"\xff"}
    pack(tmp_path / "s.tar", files)
    assert read_manifest(tmp_path / "s.tar")["label"].to_list() == ["fake"]


def test_shards_of_classes_alone_split_by_shard(tmp_path: Path) -> None:
    for shard in range(3):
        pack(tmp_path / f"s-{shard}.tar", {
            f"{n}.{kind}": png(n) if kind == "png" else str(n % 2).encode()
            for n in range(4) for kind in ("png", "cls")
        })  # fmt: skip
    data = DataConfig(manifests=(f"file://{tmp_path}/s-{{0..2}}.tar",), val_sources=("s-2",))
    train, val = read_split(TrainConfig(data=data))
    assert (len(train), len(val)) == (8, 4)
    assert set(train["source"]) == {"s-0", "s-1"}
    assert set(val["label"]) == {"real", "fake"}
    for changed, words in (
        (replace(data, val_sources=()), r"set data\.val_sources to some of .*s-0, s-1, s-2"),
        (replace(data, val_sources=("s-9",)), r"not in the manifests: s-9 \(sources: s-0"),
        (replace(data, val_split="val"), "no row has the split 'val'"),
    ):
        with pytest.raises(ManifestError, match=words):
            read_split(TrainConfig(data=changed))


def test_the_noise_cache_reads_shards(loose: Path, shards: str, tmp_path: Path) -> None:
    source = load_noise_source("nano")
    packed, files = (read_manifest(m)["path"].to_list()[:2] for m in (shards, loose))
    assert fill_cache(packed, source, tmp_path / "cache").computed == 2
    assert fill_cache(files, source, tmp_path / "cache").present == 2


def test_what_is_wrong_with_shards_is_a_sentence(tmp_path: Path, shards: str) -> None:
    for files, words in (
        ({"a.png": png(0)}, r"a\.png has no label: put a a\.json"),
        ({"a.txt": b"", "a.nef": b""}, "holds no picture"),
        ({"a.png": png(0), "a.json": b"[1]"}, r"a\.json: not readable: a list"),
        ({"a.png": png(0), "a.cls": b"cat"}, "unknown label 'cat'"),
        ({"\udce9.png": png(0), "\udce9.cls": b"1"}, r"the name \\xe9\.png is no UTF-8"),
    ):
        tar = tmp_path / f"{len(words)}.tar"
        pack(tar, files)
        with pytest.raises(ManifestError, match=words):
            read_manifest(tar)
    with pytest.raises(ManifestError, match=r"none\.tar: cannot be read .*: No such file"):
        read_manifest(tmp_path / "none.tar")
    (tmp_path / "packed.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(ManifestError, match=r"not a plain, uncompressed tar.*decompress it first"):
        read_manifest(tmp_path / "packed.tar")
    for name in ("s-{0..1}.tar.gz", "s.tgz", "s.tar.zst"):
        with pytest.raises(ManifestError, match=r"^s.*: pictures are read .*decompress it first"):
            read_manifest(name)
    with pytest.raises(ManifestError, match=r"^s3://b/s\.tar: .*copy the manifest or the shards"):
        read_manifest("s3://b/s.tar")
    first = shards.replace("{0000..0002}", "0000")
    with pytest.raises(ImageError, match="has no such member"):
        read_bytes(Path(f"{first}::none.png"))
    with pytest.raises(ImageError, match="no such file"):
        read_bytes(tmp_path / "none.tar::a.png")


def test_a_shard_cut_short_keeps_what_comes_before(
    shards: str, loose: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tar = loose.parent / "cut.tar"
    pack(
        tar,
        {
            f"{n}.{kind}": png(n) if kind == "png" else b"1"
            for n in range(4)
            for kind in ("cls", "png")
        },
    )
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level("WARNING"):
        table = read_manifest(tar)
    assert 1 <= len(table) <= 3
    assert "the rest is lost" in caplog.text
    assert decode(table["path"][0]).shape == (80, 90, 3)
    with pytest.raises(ImageError, match=r"cut short in this picture|truncated"):
        decode(table["path"].iloc[-1])
