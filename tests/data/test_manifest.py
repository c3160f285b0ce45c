"""Manifests as other programs write them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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


def test_addresses_of_files_are_paths_and_others_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text("path,label\nfile:///x/a%20b.jpg,real\nFILE://localhost/x/c.tar::d.jpg,fake\n")
    assert read_manifest(file)["path"].to_list() == ["/x/a b.jpg", "/x/c.tar::d.jpg"]
    file.write_text("path,label\na.png,real\ns3://bucket/a.jpg,fake\n")
    with pytest.raises(ManifestError, match=r"m\.csv: s3://bucket/a\.jpg: .*and the pictures"):
        read_manifest(file)
    with pytest.raises(ManifestError, match=r"^s3://bucket/m\.csv: .*copy the manifest"):
        read_manifest("s3://bucket/m.csv")


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


def test_parquet_as_other_programs_write_it(tmp_path: Path) -> None:
    file, label = tmp_path / "m.parquet", pa.array(["real", "fake"])
    generator = pa.array([None, "x"]).dictionary_encode()
    pq.write_table(pa.table({"Path": [b"a.png", b"b.png"], "label": label, "generator": generator}),
                   file)  # fmt: skip
    table = read_manifest(file)
    assert table["path"].to_list() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert table["generator"].to_list() == ["", "x"]
    frame = pd.DataFrame({"path": ["a.png"], "label": ["real"]})
    frame.set_index("path").to_parquet(file)
    assert read_manifest(file)["path"].to_list() == [str(tmp_path / "a.png")]
    frame[:0].to_parquet(file)
    with pytest.raises(ManifestError, match="no rows"):
        read_manifest(file)
    for arrays, names, words in (
        ([pa.array([1, 2]), label], ["path", "label"], "path holds int64, not text"),
        ([pa.array([["a"], ["b"]]), label], ["path", "label"], "path holds list"),
        ([label, label, label], ["path", "path", "label"], "two columns have the name path"),
    ):
        pq.write_table(pa.Table.from_arrays(arrays, names), file)
        with pytest.raises(ManifestError, match=rf"m\.parquet: .*{words}"):
            read_manifest(file)
