"""Manifests as other programs write them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from distildire.data.manifest import ManifestError, read_manifest


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_codes_and_separators(tmp_path: Path, code: str, separator: str) -> None:
    file = tmp_path / "m.csv"
    rows = [["path", "label", "generator"], ["a.png", "0"], ["ö.png", "fake", "Größe"]]
    file.write_bytes("\r\n".join(map(separator.join, rows)).encode(code))
    table = read_manifest(file)
    assert table["path"].to_list() == [str(tmp_path / "a.png"), str(tmp_path / "ö.png")]
    assert table["label"].to_list() == ["real", "fake"]
    assert table["generator"].to_list() == ["", "Größe"]


def test_rows_without_path_or_label_are_named(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    for text, words in (
        ("label,path\nreal,a.png\nreal\n", "row 2: no path"),
        ("path,label\na.png,real\nb.png\n", "row 2: no label"),
        ("path,label\na,b.png,real\n", "row 1: 3 cells where the first line has 2"),
        ("name,label\na.png,real\n", "no column path"),
        ("", "no column label, path"),
        ("path,label\n", "no rows"),
    ):
        file.write_text(text)
        with pytest.raises(ManifestError, match=f"m.csv: .*{words}"):
            read_manifest(file)
    file = tmp_path / "m.parquet"
    pd.DataFrame({"path": ["a.png", None], "label": ["real", "fake"]}).to_parquet(file)
    with pytest.raises(ManifestError, match=r"m\.parquet: row 2: no path"):
        read_manifest(file)
