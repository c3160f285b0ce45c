"""The audit on sets that were built with a known leak."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from data.grainy import picture
from distildire.data.audit import LeakError, auc_error_by_chance, audit, refuse_leak
from distildire.data.audit_report import save_audit
from distildire.data.manifest import read_manifest
from distildire.io.pictures import decode
from distildire.io.preprocessing import equalize
from distildire.io.writing import WriteError

COUNT = 18


def build(folder: Path, seed: int = 0, **leak: dict[str, object]) -> pd.DataFrame:
    """Six sources per class; `leak` changes how one class is saved. The default has none."""
    rng = np.random.default_rng(seed)
    rows = []
    for label in ("real", "fake"):
        how = leak.get(label, {})
        for i in range(COUNT):
            size = how.get("size") or [(160, 128), (128, 128), (144, 200)][i % 3]
            quality = how.get("quality") or int(rng.integers(80, 96))
            suffix = str(how.get("suffix", "jpg"))
            path = folder / f"{label}{i}.{suffix}"
            options = {} if suffix == "png" else {"quality": quality}
            if how.get("exif"):
                exif = Image.Exif()
                exif[0x010F] = "Camera"
                options["exif"] = exif
            picture(rng, *size).save(path, **options)
            rows.append({"path": path.name, "label": label, "source": f"{label}{i % 6}",
                         "split": "train" if i % 2 else "test"})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return read_manifest(folder / "manifest.csv")


LEAKS = {
    "format": {"real": {"quality": 90}, "fake": {"suffix": "png"}},
    "size": {"real": {"size": (160, 120)}, "fake": {"size": (128, 128)}},
    "quality": {"real": {"quality": 95}, "fake": {"quality": 75}},
    "metadata": {"real": {"exif": True}},
}


@pytest.mark.parametrize("kind", LEAKS)
def test_each_leak_is_found_and_named_and_gone_once_equalised(kind: str, tmp_path: Path) -> None:
    table = build(tmp_path, **LEAKS[kind])
    found = audit(table)
    assert found.leak_auc is not None
    assert found.leak_auc >= 0.95
    assert kind in {leak.kind for leak in found.leaks}
    assert kind in found.verdict
    with pytest.raises(LeakError, match="--accept-leak"):
        refuse_leak(found)
    refuse_leak(found, accept=True)
    refuse_leak(found, equalized=True)
    for i, path in enumerate(table["path"]):
        crop = equalize(decode(path))[:120, :120]
        table.loc[i, "path"] = str(tmp_path / f"equal{i}.jpg")
        Image.fromarray(crop).save(table.loc[i, "path"], quality=90)
    after = audit(table)
    assert after.leak_auc is not None
    assert after.leak_auc <= 0.60
    assert not after.leaks


def test_a_quality_leak_is_not_called_a_format_leak(tmp_path: Path) -> None:
    found = audit(build(tmp_path, **LEAKS["quality"]))
    assert {leak.kind for leak in found.leaks} == {"quality"}


def test_a_set_without_a_leak_passes(tmp_path: Path) -> None:
    found = audit(build(tmp_path))
    assert found.leaks == []
    assert not found.leaky
    assert "No leak" in found.verdict
    refuse_leak(found)


def test_duplicates_across_splits_are_named(tmp_path: Path) -> None:
    table = build(tmp_path)
    (tmp_path / "real1.jpg").write_bytes((tmp_path / "real0.jpg").read_bytes())
    with Image.open(tmp_path / "fake0.jpg") as image:
        copy = image.resize((image.width * 3 // 4, image.height * 3 // 4)).filter(
            ImageFilter.GaussianBlur(0.4)
        )
    copy.save(tmp_path / "fake1.jpg", quality=60)
    found = audit(table)
    assert [leak.kind for leak in found.leaks] == ["duplicate"]
    assert found.duplicates["exact_across_splits"] == 1
    assert found.duplicates["near_across_splits"] == 1
    assert "test and train" in found.leaks[0].detail


def test_different_pictures_are_no_duplicates(tmp_path: Path) -> None:
    found = audit(build(tmp_path, seed=3))
    counts = [v for v in found.duplicates.values() if isinstance(v, int)]
    assert counts == [0, 0, 0, 0]


def test_files_that_hold_no_picture_are_no_duplicates(tmp_path: Path) -> None:
    table = build(tmp_path)
    for name in ("real0.jpg", "real1.jpg", "fake0.jpg"):
        (tmp_path / name).write_bytes(b"")
    found = audit(table)
    assert [v for v in found.duplicates.values() if isinstance(v, int)] == [0, 0, 0, 0]
    assert found.leaks == []


def test_files_are_written_and_open_offline(tmp_path: Path) -> None:
    table = build(tmp_path, **LEAKS["format"])
    table.loc[len(table)] = {**table.loc[0], "path": str(tmp_path / "gone.jpg")}
    save_audit(audit(table), tmp_path / "out")
    tree = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert {"leak_auc", "leaks", "verdict", "by_source"} <= set(tree)
    assert all(set(leak) == {"kind", "detail"} for leak in tree["leaks"])
    assert tree["unreadable"]["count"] == 1
    assert len(tree["by_source"]) == 12
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")


def test_one_class_only_says_so(tmp_path: Path) -> None:
    table = build(tmp_path)
    found = audit(table[table["label"] == "real"].reset_index(drop=True))
    assert found.leak_auc is None
    assert "one class" in found.verdict
    refuse_leak(found)


def test_few_pictures_say_so(tmp_path: Path) -> None:
    table = build(tmp_path).groupby("label")
    assert "2 real and 2 fake" in audit(table.head(2).reset_index(drop=True)).verdict
    assert "so few pictures" in audit(table.head(6).reset_index(drop=True)).verdict


def test_the_page_that_can_not_be_written_leaves_no_json(tmp_path: Path) -> None:
    (tmp_path / "audit.html").mkdir()
    with pytest.raises(WriteError, match=r"audit\.html"):
        save_audit(audit(build(tmp_path)), tmp_path)
    assert not (tmp_path / "audit.json").exists()


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    table = build(tmp_path)
    table["path"] = [path + ".gone" for path in table["path"]]
    with pytest.raises(ValueError, match="no such file"):
        audit(table)


def test_chance_error_against_simulation() -> None:
    scores = np.random.default_rng(0).random((2000, 70))
    above = (scores[:, :30, None] > scores[:, None, 30:]).mean(axis=(1, 2))  # the AUC of each draw
    simulated = np.std(above)
    assert auc_error_by_chance(40, 30) == pytest.approx(simulated, rel=0.08)
