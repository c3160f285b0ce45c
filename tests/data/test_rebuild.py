"""Crops from git clones: to the byte, resumable, with every fault named."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from typer.testing import CliRunner

from distildire.cli import app
from distildire.data.manifest import ManifestError
from distildire.data.rebuild import NEEDED, Cut, cut_picture, default_cut, make_row, rebuild
from distildire.io.perceptual_hashes import look
from distildire.io.pictures import RGB
from distildire.io.preprocessing import encode_jpeg

RECORDED = Cut(
    scale=0.36635, kernel="box", box=(76, 166, 524, 614), jpeg_quality=86, jpeg_subsampling=2
)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height))


@pytest.fixture
def clone(tmp_path: Path) -> tuple[Path, str]:
    work = tmp_path / "clones" / "owner+name"
    work.mkdir(parents=True)
    git(work, "init", "-q")
    picture(0, 1200, 900).save(work / "large.png")
    picture(1, 300, 260).save(work / "sämall one.jpg")
    picture(2, 64, 64).save(work / "tiny.png")
    (work / "broken.jpg").write_bytes(b"no picture")
    git(work, "add", ".")
    git(work, "commit", "-qm", "x")
    return work.parent, git(work, "rev-parse", "HEAD")


def manifest(tmp_path: Path, commit: str, *names: str, **columns: object) -> Path:
    rows = [
        {"repository": "owner/name", "commit": commit, "original_path": name, "label": "fake"}
        for name in names
    ]
    path = tmp_path / "asked.csv"
    pd.DataFrame(rows).assign(**columns).to_csv(path, index=False)
    return path


def test_a_rebuilt_manifest_gives_the_same_bytes(tmp_path: Path, clone: tuple[Path, str]) -> None:
    clones, commit = clone
    asked = manifest(tmp_path, commit, "large.png", "sämall one.jpg")
    first = rebuild(asked, clones, tmp_path / "a", workers=1)
    again = rebuild(tmp_path / "a" / "manifest.parquet", clones, tmp_path / "b", workers=2)
    assert str(first) == str(again) == "2 made, 0 missing, 0 different"
    for row in first.table.itertuples():
        content = (tmp_path / "b" / row.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.sha256
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (row.width, row.height)
    large = first.table.set_index("original_path").loc["large.png"]
    assert 512 <= round(large["scale"] * 900) <= 800
    assert (large["width"], large["height"]) == (448, 448)


def test_an_original_with_a_known_look_is_decoded_once(
    tmp_path: Path, clone: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clones, commit = clone
    asked = manifest(tmp_path, commit, "large.png")
    table = rebuild(asked, clones, tmp_path / "a", workers=1).table
    row, original = table.iloc[0].to_dict(), (clones / "owner+name" / "large.png").read_bytes()

    def never(image: Image.Image) -> str:
        raise AssertionError("decoded for its look again")

    monkeypatch.setattr("distildire.data.rebuild.look", never)
    made = make_row(row, original, tmp_path / "b", None)
    assert (made["problem"], made["look"], made["sha256"]) == ("", row["look"], row["sha256"])


def test_what_cannot_be_made_is_named_and_the_rest_is_made(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    clones, commit = clone
    names = ("large.png", "absent.png", "broken.jpg", "tiny.png")
    result = rebuild(manifest(tmp_path, commit, *names), clones, tmp_path / "out", workers=1)
    assert str(result) == "1 made, 3 missing, 0 different"
    reasons = pd.read_csv(tmp_path / "out" / "problems.csv").set_index("original_path")["problem"]
    assert "too small, 64 x 64" in reasons["tiny.png"]
    assert reasons["broken.jpg"].startswith("missing: not a picture in a known format")
    with pytest.raises(ManifestError, match="no clone"):
        rebuild(manifest(tmp_path, commit, "large.png"), tmp_path, tmp_path / "none", workers=1)


@pytest.mark.parametrize("options", [{"dtype": "f4"}, {"dtype": "f2", "tile": (64, 64)},
                                     {"dtype": "f4", "planarconfig": "separate"}])  # fmt: skip
def test_what_pillow_alone_does_not_read_is_made_alike(
    tmp_path: Path, clone: tuple[Path, str], options: dict[str, Any]
) -> None:
    rgb = np.array(picture(3, 320, 240))
    kind = np.dtype(options.pop("dtype"))
    values = rgb.astype(kind) / 255 if kind.kind == "f" else rgb.astype(kind) * 257
    if options.get("planarconfig"):
        values = values.transpose(2, 0, 1)
    file = io.BytesIO()
    tifffile.imwrite(file, values.astype(kind), photometric="rgb", **options)
    row = {"repository": "owner/name", "commit": "0", "original_path": "a.tif", "label": "fake"}
    made = make_row(row, file.getvalue(), tmp_path / "out", None)
    assert (made["problem"], made["original_format"]) == ("", "TIFF")
    cut = default_cut(hashlib.sha256(file.getvalue()).hexdigest(), 320, 240)
    expected = encode_jpeg(cut_picture(rgb, cut), cut.jpeg_quality, cut.jpeg_subsampling)
    assert (tmp_path / "out" / made["path"]).read_bytes() == expected
    assert made["look"] == look(Image.fromarray(rgb))


def test_one_path_of_two_repositories_is_refused(tmp_path: Path, clone: tuple[Path, str]) -> None:
    path = manifest(tmp_path, clone[1], "a.png", "b.png", path=["real/x.jpg"] * 2)
    table = pd.read_csv(path)
    table["repository"] = ["owner/name", "owner/other"]
    table.to_csv(path, index=False)
    with pytest.raises(ManifestError, match=r"two repositories have the path real/x\.jpg"):
        rebuild(path, clone[0], tmp_path / "out")


def test_the_manifest_that_is_written_is_none_to_read(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    out = tmp_path / "out"
    rebuild(manifest(tmp_path, clone[1], "large.png"), clone[0], out, workers=1)
    written = (out / "manifest.parquet").read_bytes()
    with pytest.raises(ManifestError, match="is read, and would be written over"):
        rebuild(out / "manifest.parquet", tmp_path / "no-clones", out, workers=1)
    assert (out / "manifest.parquet").read_bytes() == written


@pytest.mark.parametrize("paths", [["real/x.jpg", "./real/x.jpg"], [b"real/x.jpg"] * 2], ids=str)
def test_one_file_in_two_spellings_is_that_of_one_row(
    tmp_path: Path, clone: tuple[Path, str], paths: list[str | bytes]
) -> None:
    table = pd.read_csv(manifest(tmp_path, clone[1], "large.png", "sämall one.jpg"))
    table.assign(path=paths).to_parquet(tmp_path / "asked.parquet")
    result = rebuild(tmp_path / "asked.parquet", clone[0], tmp_path / "out", workers=1)
    assert str(result) == "1 made, 0 missing, 1 different"
    (row,) = result.table.itertuples()
    content = (tmp_path / "out" / "real" / "x.jpg").read_bytes()
    assert (row.path, row.sha256) == ("real/x.jpg", hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("column", ["label", "split"])
def test_a_crop_with_two_labels_or_splits_is_counted(
    tmp_path: Path, clone: tuple[Path, str], column: str
) -> None:
    values = ["real", "fake"]
    asked = manifest(tmp_path, clone[1], *["large.png"] * 2, path="x.jpg", **{column: values})
    result = rebuild(asked, clone[0], tmp_path / "a", workers=1)
    assert str(result) == "1 made, 0 missing, 1 different"
    assert "another row's crop has the path x.jpg" in result.problems[0][2]
    asked = manifest(tmp_path, clone[1], *["large.png"] * 2, **{column: values})
    table = rebuild(asked, clone[0], tmp_path / "b", workers=1).table
    assert sorted(table[column]) == sorted(values)


def test_what_was_missing_is_tried_again(tmp_path: Path, clone: tuple[Path, str]) -> None:
    clones, commit = clone
    asked = manifest(tmp_path, commit, "large.png", "sämall one.jpg", "tiny.png")
    whole = rebuild(asked, clones, tmp_path / "out", workers=1)
    assert str(whole) == "2 made, 1 missing, 0 different"
    (note,) = (tmp_path / "out" / ".parts").iterdir()
    content = json.loads(note.read_text())
    content["rows"][0] |= {"problem": "missing: MemoryError", "made": False}
    note.write_text(json.dumps(content))
    again = rebuild(asked, clones, tmp_path / "out", workers=1)
    assert str(again) == str(whole)
    (clones / "owner+name").rename(tmp_path / "away")  # what is too small stays so
    assert str(rebuild(asked, clones, tmp_path / "out", workers=1)) == str(again)


def test_problems_that_are_gone_are_not_listed(tmp_path: Path, clone: tuple[Path, str]) -> None:
    clones, commit = clone
    rebuild(manifest(tmp_path, commit, "large.png", "a.png"), clones, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "problems.csv").exists()
    rebuild(manifest(tmp_path, commit, "large.png"), clones, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "problems.csv").exists()


@pytest.mark.parametrize("out_of", ["/tmp/x.jpg", "../x.jpg", "real/../../x.jpg", "C:\\x.jpg",
                                    "manifest.parquet", "./problems.csv", ".parts/x"])  # fmt: skip
def test_a_path_out_of_the_folder_is_refused(
    tmp_path: Path, clone: tuple[Path, str], out_of: str
) -> None:
    path = manifest(tmp_path, clone[1], "a.png", path=[out_of])
    with pytest.raises(ManifestError, match="is no path below the output"):
        rebuild(path, clone[0], tmp_path / "out")


def test_other_bytes_are_told(tmp_path: Path, clone: tuple[Path, str]) -> None:
    clones, commit = clone
    wrong = manifest(tmp_path, commit, "large.png", "sämall one.jpg", sha256=["0" * 64, ""])
    assert str(rebuild(wrong, clones, tmp_path / "a")) == "2 made, 0 missing, 1 different"
    wrong = manifest(
        tmp_path, commit, "large.png", "sämall one.jpg", original_sha256=["0" * 64, ""]
    )
    assert str(rebuild(wrong, clones, tmp_path / "b")) == "1 made, 0 missing, 1 different"


def test_a_finished_repository_is_not_read_again(tmp_path: Path, clone: tuple[Path, str]) -> None:
    clones, commit = clone
    asked = manifest(tmp_path, commit, "large.png")
    made = rebuild(asked, clones, tmp_path / "out").table
    (clones / "owner+name").rename(tmp_path / "away")
    assert rebuild(asked, clones, tmp_path / "out").table.equals(made)
    (tmp_path / "out" / made["path"][0]).unlink()
    with pytest.raises(ManifestError, match="no clone"):
        rebuild(asked, clones, tmp_path / "out")


def test_a_stated_cut_is_obeyed(tmp_path: Path, clone: tuple[Path, str]) -> None:
    clones, commit = clone
    stated = {"scale": 0.5, "kernel": "box", "box": "10,20,110,220"}
    asked = manifest(tmp_path, commit, "large.png", jpeg_quality=95, jpeg_subsampling=0, **stated)
    row = rebuild(asked, clones, tmp_path / "out").table.iloc[0]
    assert (row["width"], row["height"]) == (100, 200)
    expected = np.asarray(picture(0, 1200, 900).reduce(2))[20:220, 10:110].astype(float)
    found = np.asarray(Image.open(tmp_path / "out" / row["path"])).astype(float)
    assert np.abs(found - expected).mean() < 2.0


def test_the_default_cut_is_a_function_of_the_bytes() -> None:
    assert default_cut("ab", 3000, 2000) == default_cut("ab", 3000, 2000)
    assert default_cut("ab", 3000, 2000) != default_cut("ab", 3000, 2000, crop=1)
    # Recorded: a change of these makes every published manifest another one.
    assert default_cut("ab", 3000, 2000) == RECORDED
    with pytest.raises(ValueError, match="outside"):
        cut_picture(np.zeros((50, 50, 3), np.uint8), Cut(1.0, "box", (0, 0, 60, 50), 90, 0))


def test_the_command_ends_with_one_line(tmp_path: Path, clone: tuple[Path, str]) -> None:
    clones, commit = clone
    asked = manifest(tmp_path, commit, "large.png", "absent.png")
    arguments = ["rebuild", str(asked), "--clones", str(clones), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("1 made, 1 missing, 0 different")


def darker(name: str, rgb: RGB) -> RGB:
    if name != "half":
        raise ValueError(f"no autoencoder {name}")
    return rgb // 2


def test_a_reconstruction_is_made_of_the_crop_its_original_gives(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    clones, commit = clone
    names = ("large.png", "sämall one.jpg", "large.png")
    reconstruction = ["half", "", "other"]
    asked = manifest(tmp_path, commit, *names, reconstruction=reconstruction)
    result = rebuild(asked, clones, tmp_path / "out", reconstruct=darker, workers=1)
    assert str(result) == "2 made, 1 missing, 0 different"
    assert result.problems == [("owner/name", "large.png", "missing: no autoencoder other")]
    row = result.table.set_index("original_path").loc["large.png"]
    assert row["path"].endswith("-0-half.jpg")
    cut = default_cut(row["original_sha256"], 1200, 900)
    pixels = cut_picture(np.asarray(picture(0, 1200, 900)), cut)
    expected = encode_jpeg(pixels // 2, cut.jpeg_quality, cut.jpeg_subsampling)
    assert (tmp_path / "out" / row["path"]).read_bytes() == expected
    ratio = peak_signal_noise_ratio(pixels, pixels // 2, data_range=255)
    assert row["psnr"] == pytest.approx(ratio, abs=0.01)
    small = result.table.set_index("original_path").loc["sämall one.jpg"]
    assert np.isnan(small["psnr"])


def brighter(name: str, rgb: RGB) -> RGB:
    return rgb // 2 + 100


def test_another_reconstruction_is_made_anew(tmp_path: Path, clone: tuple[Path, str]) -> None:
    asked = manifest(tmp_path, clone[1], "large.png", reconstruction="half")
    hashes = {
        rebuild(asked, clone[0], tmp_path / "out", reconstruct=made, workers=1).table["sha256"][0]
        for made in (darker, brighter)
    }
    assert len(hashes) == 2


def test_a_table_in_text_with_reconstructions_is_made_again(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    reconstruction = ["half", ""]
    asked = manifest(tmp_path, clone[1], *["large.png"] * 2, reconstruction=reconstruction)
    first = rebuild(asked, clone[0], tmp_path / "a", reconstruct=darker, workers=1).table
    first.to_csv(tmp_path / "text.csv", index=False)
    again = rebuild(tmp_path / "text.csv", clone[0], tmp_path / "b", reconstruct=darker, workers=1)
    assert str(again) == "2 made, 0 missing, 0 different"
    assert again.table["psnr"].equals(first["psnr"])


@pytest.mark.parametrize(("off", "different"), [(0.05, 0), (0.5, 1)])
def test_a_reconstruction_may_differ_by_rounding(
    tmp_path: Path, clone: tuple[Path, str], off: float, different: int
) -> None:
    clones, commit = clone
    asked = manifest(tmp_path, commit, "large.png", reconstruction="half")
    made = rebuild(asked, clones, tmp_path / "a", reconstruct=darker, workers=1).table
    stated = tmp_path / "stated.parquet"
    made.assign(sha256="0" * 64, psnr=made["psnr"] + off).to_parquet(stated)
    again = rebuild(stated, clones, tmp_path / "b", reconstruct=darker, workers=1)
    assert str(again) == f"1 made, 0 missing, {different} different"


def test_the_tiny_autoencoders_are_asked_unless_others_are_given(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    clones, commit = clone
    asked = manifest(tmp_path, commit, "large.png", "large.png", reconstruction=["taef2", ""])
    result = rebuild(asked, clones, tmp_path / "out", workers=1)
    assert str(result) == "1 made, 1 missing, 0 different"
    assert "no clone of madebyollin/taesd" in result.problems[0][2]


def test_what_is_missing_of_a_manifest_written_here_is_no_crop(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    """Its rows state what an original looks like, whether that can be had or not."""
    clones, commit = clone
    names = ["large.png", "sämall one.jpg"]
    written = rebuild(manifest(tmp_path, commit, *names), clones, tmp_path / "a", workers=1).table
    stated = tmp_path / "stated.parquet"
    written.assign(repository=["owner/name", "owner/gone"]).to_parquet(stated)
    again = rebuild(stated, clones, tmp_path / "b", workers=1)
    assert str(again) == "1 made, 1 missing, 0 different"
    assert all((tmp_path / "b" / path).exists() for path in again.table["path"])
    assert "made" not in again.table


def test_crops_of_one_original_have_files_of_their_own(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    clones, commit = clone
    boxes = ["0,0,200,200", "100,100,300,300", "0,0,200,200"]
    asked = manifest(
        tmp_path, commit, *["large.png"] * 3, box=boxes, scale="1.0", jpeg_quality="90.0"
    )
    table = rebuild(asked, clones, tmp_path / "a", workers=1).table
    assert sorted(table["box"]) == boxes[:2]
    assert set(table["jpeg_quality"]) == {90}
    for row in table.itertuples():
        assert hashlib.sha256((tmp_path / "a" / row.path).read_bytes()).hexdigest() == row.sha256
    stated = manifest(tmp_path, commit, *["large.png"] * 3, box=boxes, scale=1, path="one.jpg")
    assert str(rebuild(stated, clones, tmp_path / "b")) == "1 made, 0 missing, 1 different"


def test_a_row_that_means_nothing_costs_itself_alone(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    clones, commit = clone
    names = ["large.png", "sämall one.jpg", "large.png"]
    asked = manifest(tmp_path, commit, *names, crop=["first", "0", "1.0"], trim=["", "much", ""])
    result = rebuild(asked, clones, tmp_path / "out", workers=1)
    assert str(result) == "1 made, 2 missing, 0 different"
    assert [path for _, path, _ in result.problems] == names[:2]


@pytest.mark.parametrize(
    "bad",
    [
        *({"original_path": name} for name in ("../a", "./large.png", "a\nb", "x" * 100_000)),
        *({"commit": name} for name in ("-x", "HEAD^{/x", "@{-1}")),
        *({"repository": name} for name in ("x" * 300, "owner/" + "y" * 249, "a\0b", "dead")),
        *({"path": name} for name in ("x" * 300, "real", "real/other.jpg/x.jpg", "a\0b")),
    ],
    ids=str,
)
def test_a_row_that_git_or_the_system_refuses_costs_itself_alone(
    tmp_path: Path, clone: tuple[Path, str], bad: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clones" / "dead" / "objects").mkdir(parents=True)
    (tmp_path / "clones" / "dead" / "HEAD").write_text("no reference")
    names = ("sämall one.jpg", "large.png", "sämall one.jpg", "large.png")
    paths = ["real/other.jpg", "", "real/last.jpg", "real/large.jpg"]
    table = pd.read_csv(manifest(tmp_path, clone[1], *names, path=paths), keep_default_na=False)
    for name, value in bad.items():
        table.loc[1, name] = value
    table.to_parquet(tmp_path / "asked.parquet")
    result = rebuild(tmp_path / "asked.parquet", clone[0], tmp_path / "out", workers=1)
    found = set(result.table["path"])
    assert {"real/other.jpg", "real/last.jpg", "real/large.jpg"} <= found
    assert len(found) + len(result.problems) == 4
    assert "fatal" not in capfd.readouterr().err


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\x81\x40.png", "café.png".encode()], ids=str)
def test_names_in_any_code_are_found_and_found_again(
    tmp_path: Path, clone: tuple[Path, str], name: bytes
) -> None:
    work = clone[0] / "owner+name"
    picture(3, 300, 260).save(work / os.fsdecode(name), "PNG")
    picture(4, 300, 260).save(work / " lead.png")
    git(work, "add", ".")
    git(work, "commit", "-qm", "y")
    row = f"owner/name,{git(work, 'rev-parse', 'HEAD')},".encode()
    head = ",".join(NEEDED).encode()
    asked = tmp_path / "asked.csv"
    lines = [head, *(row + cell + b",real" for cell in (name, name + b" ", b" lead.png"))]
    asked.write_bytes(b"\n".join(lines))
    first = rebuild(asked, clone[0], tmp_path / "a", workers=1)
    assert str(first) == "2 made, 0 missing, 0 different"
    again = rebuild(tmp_path / "a" / "manifest.parquet", clone[0], tmp_path / "b", workers=1)
    assert again.table["sha256"].equals(first.table["sha256"])
    binary = {"repository": b"owner/name", "commit": row.split(b",")[1], "original_path": name}
    pd.DataFrame([binary | {"label": "real"}]).to_parquet(tmp_path / "binary.parquet")
    alike = rebuild(tmp_path / "binary.parquet", clone[0], tmp_path / "c", workers=1)
    assert set(alike.table["sha256"]) < set(first.table["sha256"])


def test_a_box_that_no_jpeg_can_hold_costs_its_row_alone(
    tmp_path: Path, clone: tuple[Path, str]
) -> None:
    work = clone[0] / "owner+name"
    Image.new("RGB", (66_000, 200)).save(work / "long.png")
    git(work, "add", ".")
    git(work, "commit", "-qm", "y")
    commit = git(work, "rev-parse", "HEAD")
    asked = manifest(tmp_path, commit, "long.png", "large.png", box=["0,0,66000,200", ""])
    result = rebuild(asked, clone[0], tmp_path / "out", workers=1)
    assert str(result) == "1 made, 1 missing, 0 different"
    assert "too long to re-encode: 66000 x 200" in result.problems[0][2]


def test_damaged_crops_and_notes_are_made_anew(tmp_path: Path, clone: tuple[Path, str]) -> None:
    clones, commit = clone
    asked, out = manifest(tmp_path, commit, "large.png"), tmp_path / "out"
    path = rebuild(asked, clones, out, workers=1).table["path"][0]
    whole = (out / path).read_bytes()
    (note,) = (out / ".parts").iterdir()
    for damaged, content in ((out / path, whole[:99]), (note, b"[]"), (note, b'{"rows": 1}')):
        damaged.write_bytes(content)
        assert str(rebuild(asked, clones, out, workers=1)) == "1 made, 0 missing, 0 different"
        assert (out / path).read_bytes() == whole


@pytest.mark.parametrize("scale", [0.25, 1.0])
def test_a_stated_scale_has_a_box_of_its_own(
    tmp_path: Path, clone: tuple[Path, str], scale: float
) -> None:
    asked = manifest(tmp_path, clone[1], "large.png", scale=scale)
    row = rebuild(asked, clone[0], tmp_path / "out", workers=1).table.iloc[0]
    sides = [min(448, round(side * scale)) for side in (1200, 900)]
    assert (row["scale"], [row["width"], row["height"]]) == (scale, sides)
    # The same random place as by default, as a share of where the box may be.
    default = default_cut(row["original_sha256"], 1200, 900)
    boxes = [(scale, tuple(map(int, row["box"].split(",")))), (default.scale, default.box)]
    for axis, whole in enumerate((1200, 900)):
        free = [round(whole * factor) - (box[axis + 2] - box[axis]) for factor, box in boxes]
        shares = [box[axis] / max(room, 1) for room, (_, box) in zip(free, boxes, strict=True)]
        assert shares[0] == (pytest.approx(shares[1], abs=0.01) if free[0] else 0)
    assert (row["kernel"], row["jpeg_quality"]) == (default.kernel, default.jpeg_quality)


@pytest.mark.parametrize("box", [[5, 5, 140, 140], "[5, 5, 140, 140]", "5, 5, 140, 140"], ids=str)
def test_a_box_may_be_a_list(tmp_path: Path, clone: tuple[Path, str], box: object) -> None:
    table = pd.read_csv(manifest(tmp_path, clone[1], "large.png", scale=1.0))
    table.assign(box=[box]).to_parquet(tmp_path / "asked.parquet")
    result = rebuild(tmp_path / "asked.parquet", clone[0], tmp_path / "out", workers=1)
    assert list(result.table["box"]) == ["5,5,140,140"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("kernel", "foo"), ("scale", 2.0), ("scale", 0.0), ("scale", "half"), ("jpeg_quality", 0),
     ("jpeg_quality", 101), ("jpeg_subsampling", 3), ("box", "1,2,3"), ("box", "a,b,c,d")],
)  # fmt: skip
def test_what_a_column_can_not_mean_is_named(
    tmp_path: Path, clone: tuple[Path, str], column: str, value: object
) -> None:
    names = ("sämall one.jpg", "large.png")  # the first has scale 1, where no kernel is used
    asked = manifest(tmp_path, clone[1], *names, **{column: [value, ""]})
    result = rebuild(asked, clone[0], tmp_path / "out", workers=1)
    assert str(result) == "1 made, 0 missing, 1 different"
    assert result.problems[0][2].startswith(f"different: {column} is {value}: give ")
