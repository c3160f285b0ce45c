"""Layouts of the field, as folders of empty files: only names are looked at."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from distildire.data.layouts import LayoutError, read_layout, read_pairs
from distildire.data.manifest import ManifestError, read_manifest
from distildire.data.prepare import prepare

# name: (layout, {picture: (label, split, generator, source) or None where it is left out})
CASES: dict[str, tuple[str, dict[str, tuple[str, str, str, str] | None]]] = {
    "diffusion_forensics": (
        "DiffusionForensics",
        {
            "images/test/imagenet/real/n01/a.JPEG": ("real", "test", "", "imagenet"),
            "images/test/imagenet/adm/adm/b.png": ("fake", "test", "adm", "imagenet"),
            "images/images/train/lsun_bedroom/sdv2/c.png": (
                "fake",
                "train",
                "sdv2",
                "lsun_bedroom",
            ),
            "images/val/celebahq/real/d.jpg": ("real", "val", "", "celebahq"),
            "dire/test/imagenet/adm/b.png": None,
            "recons/test/imagenet/real/n01/a.JPEG": None,
        },
    ),
    "genimage": (
        "GenImage",
        {
            "Midjourney/imagenet_ai_mj/train/ai/a.png": (
                "fake",
                "train",
                "Midjourney",
                "Midjourney",
            ),
            "ADM/imagenet_ai_0508_adm/val/ai/b.PNG": ("fake", "val", "ADM", "ADM"),
            "ADM/imagenet_ai_0508_adm/val/nature/c.JPEG": ("real", "val", "", "imagenet/ADM"),
            "Wukong/train/nature/d.JPEG": ("real", "train", "", "imagenet/Wukong"),
        },
    ),
    "distildire": (
        "DistilDIRE",
        {
            "train/images/fakes/a.png": ("fake", "train", "", ""),
            "train/images/reals/b.png": ("real", "train", "", ""),
            "train/dire/fakes/a.png": None,
            "test/images/reals/c.png": ("real", "test", "", ""),
        },
    ),
    "forensynths": (
        "ForenSynths or CNNDetection",
        {
            "test/progan/airplane/0_real/a.png": ("real", "test", "", "progan/airplane"),
            "test/progan/airplane/1_fake/b.png": ("fake", "test", "progan", "progan/airplane"),
            "val/progan/train/1_fake/e.png": ("fake", "val", "progan", "progan/train"),
            "test/biggan/1_fake/c.png": ("fake", "test", "biggan", "biggan"),
            # UniversalFakeDetect's diffusion sets: the real folder lies apart.
            "test/laion/0_real/d.png": ("real", "test", "", "laion"),
            "README.png": None,
        },
    ),
    "universal": (
        "UniversalFakeDetect",
        {
            "laion/a.png": ("real", "", "", "laion"),
            "ldm_200_cfg/b.png": ("fake", "", "ldm_200_cfg", "ldm_200_cfg"),
        },
    ),
    "community": (
        "Community Forensics or plain pairs",
        {
            "sdxl/fake/a.png": ("fake", "", "sdxl", "sdxl"),
            "coco/real/b.jpg": ("real", "", "", "coco"),
        },
    ),
    "pairs": (
        "Community Forensics or plain pairs",
        {
            "train/real/a.jpg": ("real", "train", "", ""),
            "train/fake/stylegan/b.jpg": ("fake", "train", "stylegan", "stylegan"),
            "valid/fake/c.webp": ("fake", "val", "", ""),
        },
    ),
}


def touch(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("name", sorted(CASES))
def test_layout(name: str, tmp_path: Path) -> None:
    layout, pictures = CASES[name]
    touch(tmp_path / name, [*pictures, "images/notes.txt"])
    table = read_layout(tmp_path / name)
    assert table.attrs["layout"] == layout
    rows = {
        str(Path(row.path).relative_to(tmp_path / name)): (
            row.label,
            row.split,
            row.generator,
            row.source,
        )
        for row in table.itertuples()
    }
    assert rows == {picture: facts for picture, facts in pictures.items() if facts}
    assert table.attrs["left_out"] == list(pictures.values()).count(None)


def test_part_of_diffusion_forensics(tmp_path: Path) -> None:
    part = tmp_path / "images" / "test" / "imagenet"
    touch(part, ["real/n01/a.JPEG", "adm/b.png"])
    table = read_layout(part)
    assert list(table["label"]) == ["fake", "real"]
    assert set(table["split"]) == {"test"}
    assert list(read_layout(part / "adm")["generator"]) == ["adm"]


def test_one_generator_of_genimage_takes_the_roots_name(tmp_path: Path) -> None:
    touch(tmp_path / "Wukong", ["train/ai/a.png", "train/nature/b.JPEG"])
    table = read_layout(tmp_path / "Wukong")
    assert list(table["generator"]) == ["Wukong", ""]
    assert list(table["source"]) == ["Wukong", "imagenet/Wukong"]


def test_unknown_layout_says_what_is_known_and_seen(tmp_path: Path) -> None:
    # A folder above that is called "fake" says nothing of these pictures.
    root = tmp_path / "fake" / "things"
    touch(root, ["holiday/a.jpg", "holiday/b.jpg", "work/c.jpg"])
    with pytest.raises(LayoutError) as caught:
        read_layout(root)
    message = str(caught.value)
    for word in (
        "GenImage",
        "ForensicHub",
        "GRIP",
        "DiffusionForensics",
        "holiday (2)",
        "work (1)",
    ):
        assert word in message
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="no pictures"):
        read_layout(tmp_path / "empty")
    with pytest.raises(LayoutError, match="no such dataset"):
        read_layout(tmp_path / "absent")


def test_forensichub_json(tmp_path: Path) -> None:
    touch(tmp_path, ["x/a.png", "x/b.png"])
    entries = [
        {"path": "x/a.png", "label": 0},
        {"path": str(tmp_path / "x/b.png"), "label": 1},
        {"path": "x/absent.png", "label": 1},
    ]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    for dataset in (tmp_path, tmp_path / "train.json"):
        table = read_layout(dataset)
        assert table.attrs["layout"] == "ForensicHub"
        assert list(table["label"]) == ["real", "fake"]
        assert set(table["split"]) == {"train"}
    (tmp_path / "train.json").write_text('{"path": 1}')
    with pytest.raises(LayoutError, match="not a list of datasets"):
        read_layout(tmp_path / "train.json")


def test_what_lists_say_of_one_picture_is_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, ["a.png", "b.png"])
    entries = [{"path": "a.png", "label": 0}, {"path": "b.png", "label": 1}]
    (tmp_path / "test.json").write_text(json.dumps(entries))
    (tmp_path / "train.json").write_text(json.dumps(entries[1:]))
    assert set(read_layout(tmp_path)["split"]) == {"test"}
    assert "1 pictures of a list are in an earlier one" in caplog.text
    (tmp_path / "train.json").write_text('[{"path": "a.png", "label": 1}]')
    with pytest.raises(ManifestError, match=r"a\.png is labelled both real and fake"):
        read_layout(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps([*entries, {"path": "a.png", "label": 1}]))
    with pytest.raises(ManifestError, match=r"a\.png is labelled both real and fake"):
        read_layout(tmp_path / "train.json")


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_forensichub_json_in_any_code(tmp_path: Path, code: str) -> None:
    touch(tmp_path, ["á.png", "b.png"])
    entries = [{"path": "á.png", "label": 0}, {"path": "b.png", "label": 1}]
    (tmp_path / "train.json").write_bytes(json.dumps(entries, ensure_ascii=False).encode(code))
    (tmp_path / "notes.json").write_bytes(b"[\xff\xfe\0\0]")
    for given in (tmp_path, tmp_path / "train.json"):
        table = read_layout(given)
        assert table.attrs["layout"] == "ForensicHub"
        assert [Path(path).name for path in table["path"]] == ["b.png", "á.png"]
        assert list(table["label"]) == ["fake", "real"]
    with pytest.raises(LayoutError, match="not a text file"):
        read_layout(tmp_path / "notes.json")


def test_grip_csv(tmp_path: Path) -> None:
    touch(tmp_path, ["synthbuster/dalle2/a.png", "synthbuster/real_RAISE_1k/b.png"])
    (tmp_path / "list.csv").write_text(
        "filename,typ\nsynthbuster/dalle2/a.png,dalle2\nsynthbuster/real_RAISE_1k/b.png,real\n"
    )
    table = read_layout(tmp_path)
    assert list(table["label"]) == ["fake", "real"]
    assert list(table["generator"]) == ["dalle2", ""]
    assert list(table["source"]) == ["synthbuster/dalle2", "synthbuster/real_RAISE_1k"]


def test_explicit_folders(tmp_path: Path) -> None:
    touch(tmp_path, ["mine/a.jpg", "theirs/flux/b.png", "theirs/flux/deep/c.png"])
    touch(tmp_path, ["mine/a.nef"])  # a raw file, which nothing can be trained on
    table = read_pairs(tmp_path / "mine", tmp_path / "theirs")
    assert list(table["label"]) == ["real", "fake", "fake"]
    assert list(table["generator"]) == ["", "flux", "flux"]
    with pytest.raises(LayoutError, match="holds the other"):
        read_pairs(tmp_path, tmp_path / "theirs")
    (tmp_path / "none").mkdir()
    with pytest.raises(LayoutError, match="no pictures"):
        read_pairs(tmp_path / "mine", tmp_path / "none")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_prepare_writes_a_manifest_that_reads_back(suffix: str, tmp_path: Path) -> None:
    touch(tmp_path / "data", ["real/a.jpg", "fake/b.jpg"])
    touch(tmp_path, ["elsewhere/c.jpg"])
    prepare(tmp_path / "data", tmp_path / f"m.{suffix}")
    table = read_manifest(tmp_path / f"m.{suffix}")
    assert set(table["path"]) == {str(tmp_path / "data" / n) for n in ("real/a.jpg", "fake/b.jpg")}

    out = tmp_path / "other" / f"m.{suffix}"
    prepare(None, out, real=tmp_path / "elsewhere", fake=tmp_path / "data" / "fake")
    assert set(read_manifest(out)["label"]) == {"real", "fake"}
    with pytest.raises(ValueError, match="or both a folder"):
        prepare(tmp_path / "data", out, real=tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"\.parquet or \.csv"):
        prepare(tmp_path / "data", tmp_path / "m.txt")


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    touch(tmp_path, ["store/a.png", "data/real/b.png"])
    (tmp_path / "data" / "fake").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "real" / "up").symlink_to(tmp_path / "data")
    assert len(read_layout(tmp_path / "data")) == 2


def test_names_that_no_table_holds_are_named(tmp_path: Path) -> None:
    touch(tmp_path, ["data/real/a.png", "data/fake/b.png"])
    (tmp_path / "data/real" / os.fsdecode(b"caf\xe9.png")).touch()
    words = r"caf\\xe9\.png is no UTF-8, which tables can't hold: rename the file"
    with pytest.raises(ManifestError, match=words):
        prepare(tmp_path / "data", tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=words):
        prepare(None, tmp_path / "m.csv", real=tmp_path / "data/real", fake=tmp_path / "data/fake")
    (tmp_path / "m.csv").write_bytes(b"path,label\ndata/real/caf\xe9.png,real\n")
    (tmp_path / "grip.csv").write_bytes(b"filename,typ\ndata/real/caf\xe9.png,real\n")
    binary = pd.DataFrame({"path": [b"data/real/caf\xe9.png"], "label": ["real"]})
    binary.to_parquet(tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(ManifestError, match=words):
            read_manifest(tmp_path / name)
    with pytest.raises(ManifestError, match=words):
        read_layout(tmp_path / "grip.csv")
