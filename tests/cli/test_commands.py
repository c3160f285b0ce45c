import csv
import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distildire import Detector
from distildire.bundle import load_bundle
from distildire.cli import app
from distildire.io.results import write_table
from made_pictures import huge_png, picture, saved
from standin import make_bundle


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distildire", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_bad_files_cost_nothing_else(folder: Path, bundle: Path) -> None:
    whole = saved(Image.fromarray(picture(200, 200)), "JPEG")
    (folder / "text.jpg").write_text("hello")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(whole[:900])
    (folder / "bomb.png").write_bytes(huge_png(40_000))
    (folder / "tiny.png").write_bytes(saved(Image.new("RGB", (3, 3)), "PNG"))
    (folder / "dangling.jpg").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("not a picture's name: not looked at")
    done = run("detect", folder, "--model", bundle, "--format", "jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [Path(r["path"]).name for r in rows] == [
        "a.png", "bomb.png", "cut.jpg", "dangling.jpg", "empty.jpg", "text.jpg", "tiny.png",
        "Ärger über Öl.png",
    ]  # fmt: skip
    good = {Path(r["path"]).name: r["verdict"] for r in rows if r["error"] is None}
    assert good == {"a.png": "fake", "Ärger über Öl.png": "real"}
    for row in rows:
        assert list(row) == [
            "path", "sha256", "probability", "logit", "verdict", "model", "width", "height",
            "error", "note", "declares", "model_sha256", "fpr",
        ]  # fmt: skip
        assert (row["probability"] is None) == (row["error"] is not None)


def test_formats_agree_and_sort_puts_fakes_first(folder: Path, bundle: Path) -> None:
    table = run("detect", folder, "--model", bundle)
    assert table.returncode == 0
    assert "equal shares" in table.stdout
    rows = list(
        csv.DictReader(
            io.StringIO(
                run("detect", folder, "--model", bundle, "--format", "csv", "--sort").stdout
            )
        )
    )
    assert [row["verdict"] for row in rows] == ["fake", "real"]


def test_resume_neither_loses_nor_repeats_a_line(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scores.jsonl"
    options = ("--model", bundle, "--format", "jsonl", "--out", out)
    run("detect", folder, *options)
    whole = out.read_text()
    first, second = whole.splitlines(keepends=True)
    paths = [json.loads(line)["path"] for line in (first, second)]
    for left in (first, first + second[: len(second) // 2], first + second[:-1], ""):
        out.write_text(left)
        assert run("detect", folder, *options, "--resume").returncode == 0
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [r["path"] for r in rows] == paths


def test_kill_in_the_middle_then_one_line_a_file(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    many, out = tmp_path / "many", tmp_path / "scores.jsonl"
    many.mkdir()
    files = [folder / "a.png", folder / "sub folder/Ärger über Öl.png"]
    for i in range(400):
        (many / f"{i:04d}.png").symlink_to(files[i % 2])
    arguments = ["detect", str(many), "--model", str(bundle), "--format", "jsonl", "--resume"]
    command = [sys.executable, "-m", "distildire", *arguments, "--out", str(out)]
    with subprocess.Popen(command) as process:
        end = time.monotonic() + 600
        while time.monotonic() < end and not (out.exists() and out.stat().st_size > 9000):
            time.sleep(0.005)
        process.kill()
    held = out.read_bytes().count(b"\n")
    assert 0 < held < 400
    assert run(*arguments, "--out", out).returncode == 0
    paths = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert paths == sorted(map(str, many.iterdir()))


def test_a_broken_model_package_hides_no_other(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bundle, tmp_path / "a_model")
    (tmp_path / "a_model/bundle.json").write_text("{")
    about = tmp_path / "a-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: a\nVersion: 1.0\n")
    (tmp_path / "gone_model.py").write_text("def folder(): return '/no/folder'\n")
    (about / "entry_points.txt").write_text(
        "[distildire.models]\na-damaged = a_model\nabsent = no_model\naway = gone_model:folder\n"
    )
    (tmp_path / "a_model/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    done = CliRunner().invoke(app, ["models", "list"])
    assert done.exit_code == 1
    assert "nano\t" in done.stdout
    damaged, absent, away = done.stderr.splitlines()
    assert damaged.startswith("distildire: a-damaged: ")
    assert "bundle.json can't be read" in damaged
    assert absent == "distildire: absent: its package can't be loaded: No module named 'no_model'"
    assert away == "distildire: away: its package names a folder that is not there: /no/folder"


def test_wrong_usage_is_exit_code_two(folder: Path, bundle: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("detect", folder, "--model", "no-such"), "no such model"),
        (("detect", folder, "--model", tmp_path), "bundle.json is missing"),
        (("detect", folder, "--model", bundle, "--fpr", "0.9"), "fpr"),
        (("detect", folder, "--model", bundle, "--resume"), "--resume"),
        (("detect",), "Missing argument"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stdout == ""


def test_stability_and_heatmap(folder: Path, bundle: Path, tmp_path: Path) -> None:
    done = run(
        "detect", folder / "a.png", "--model", bundle, "--format", "jsonl", "--stability",
        "--heatmap", tmp_path / "heat",
    )  # fmt: skip
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["verdict"] == row["stability"]["verdict"]
    assert "was not measured" in row["heatmap_note"]
    with Image.open(row["heatmap"]) as image:
        assert image.width == 240
        assert row["heatmap_note"] in image.text["Description"]


def test_the_table_says_what_was_done(folder: Path, bundle: Path, tmp_path: Path) -> None:
    heat = tmp_path / "heat"
    done = run("detect", folder / "a.png", "--model", bundle, "--heatmap", heat)
    (written,) = heat.iterdir()
    said = "".join(done.stdout.split())
    assert f"heatmap:{written}" in said
    assert f"Model{bundle}." in said
    checked = {"flips": [], "verdicts": {"as it is": "real", "jpeg 70": "real", "crop 0.9": "real"}}
    row = {
        "path": "a.png", "error": None, "verdict": "real", "probability": 0.1, "width": 1,
        "height": 2, "stability": checked,
    }  # fmt: skip
    table = io.StringIO()
    write_table([row], table, "the note")
    assert "a.png: the verdict stays the same under jpeg 70, crop 0.9\n" in table.getvalue()


def test_what_is_not_for_videos_is_told(bundle: Path, tmp_path: Path, busy: np.ndarray) -> None:
    clips = pytest.importorskip("clips")
    clip, heat = clips.write_clip(tmp_path / "a.mp4", [busy] * 5), tmp_path / "heat"
    done = run("detect", clip, "--model", bundle, "--stability", "--heatmap", heat)
    assert done.returncode == 0
    assert done.stderr.count("not for videos") == 1
    assert "heat map" not in done.stdout
    assert not heat.exists()
    picture = tmp_path / "a.png"
    Image.fromarray(busy).save(picture)
    done = run("detect", picture, "--model", bundle, "--heatmap", heat)
    assert "heat map" in done.stdout
    assert done.stderr == ""


def test_evaluate_says_that_the_files_leak(tmp_path: Path, busy: np.ndarray) -> None:
    rows = ["path,label,source,score"]
    for i in range(60):
        label, suffix = ("real", "bmp") if i % 2 else ("fake", "png")
        Image.fromarray(np.roll(busy, i, 0)[:64, :64]).save(tmp_path / f"{i}.{suffix}")
        rows.append(f"{i}.{suffix},{label},s{i % 6},{i / 60}")
    (tmp_path / "all.csv").write_text("\n".join(rows))
    said = run("evaluate", tmp_path / "all.csv", tmp_path / "all.csv", "--out", tmp_path / "out")
    assert said.returncode == 0
    (line,) = said.stderr.splitlines()
    assert line.startswith("distildire: The class leaks: ")


def test_heatmaps_among_the_pictures_are_none_of_them(folder: Path, bundle: Path) -> None:
    out, heat = folder.parent / "rows.jsonl", folder / "heat"
    common = ("detect", folder, "--model", bundle, "--format", "jsonl", "--out", out, "--resume")
    for _ in range(2):
        assert run(*common, "--heatmap", heat).returncode == 0
        assert len(out.read_text().splitlines()) == len(list(heat.iterdir())) == 2
    other = run(*common)
    assert other.returncode == 2
    assert "made with --heatmap" in other.stderr


def test_remarks_stand_under_the_table(folder: Path, bundle: Path, flat: np.ndarray) -> None:
    Image.new("RGB", (90, 80), "grey").save(folder / "grey.png")
    grain = np.random.default_rng(7).normal(0, 8, flat.shape)  # "real" until jpeg 70 smooths it
    Image.fromarray((flat + grain).clip(0, 255).astype(np.uint8)).save(folder / "edge.png")
    done = run("detect", folder, "--model", bundle, "--stability")
    assert done.returncode == 0
    assert "grey.png: nothing to judge" in " ".join(done.stdout.split())
    rows = run("detect", folder, "--model", bundle, "--stability", "--format", "csv").stdout
    found = {
        Path(r["path"]).name: (r["flips"], r["stable"]) for r in csv.DictReader(io.StringIO(rows))
    }
    assert found == {
        "a.png": ("", "true"), "edge.png": ("jpeg 70; resize 0.75", "false"), "grey.png": ("", ""),
        "Ärger über Öl.png": ("", "true"),
    }  # fmt: skip
    row = {
        "path": "a[b].png", "error": None, "verdict": "unsure", "probability": 0.4, "width": 1,
        "height": 2, "declares": "says so", "stability": {"flips": ["jpeg 70", "crop 0.9"]},
    }  # fmt: skip
    table = io.StringIO()
    write_table([row], table, "the note")
    under = table.getvalue().splitlines()[-3:]
    assert under == [
        "a[b].png: says so",
        "a[b].png: the verdict changes under jpeg 70, crop 0.9",
        "the note",
    ]


def test_a_model_without_calibration_leaves_the_results_as_they_are(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    model, out = tmp_path / "model", tmp_path / "rows.jsonl"
    shutil.copytree(bundle, model)
    about = json.loads((model / "bundle.json").read_text()) | {"calibration": None}
    (model / "bundle.json").write_text(json.dumps(about))
    out.write_text("kept\n")
    done = run("detect", folder, "--model", model, "--out", out)
    assert done.returncode == 2
    assert "not calibrated yet" in done.stderr
    assert out.read_text() == "kept\n"


def test_what_holds_nothing_to_judge_has_no_verdict_to_be_stable(
    tmp_path: Path, bundle: Path, flat: np.ndarray
) -> None:
    """At no budget a verdict: the stand-in calls smooth pictures fake."""
    blank = np.full((200, 240, 3), 128, np.uint8)
    for name, pixels in (("blank.png", blank), ("flat.png", flat)):
        Image.fromarray(pixels).save(tmp_path / name)
    done = run(
        "detect", tmp_path / "blank.png", tmp_path / "flat.png", "--model", bundle, "--fpr", "0.5",
        "--format", "jsonl", "--stability", "--heatmap", tmp_path / "heat",
    )  # fmt: skip
    nothing, judged = (json.loads(line) for line in done.stdout.splitlines())
    assert nothing["verdict"] == "unsure"
    assert nothing["probability"] == 0.5
    assert nothing["stability"] is None
    assert "heatmap" not in nothing
    assert judged["verdict"] == "fake"
    assert judged["stability"]["verdict"] == "fake"
    assert judged["stability"]["logits"]["as it is"] == judged["logit"]
    assert [Path(judged["heatmap"])] == list((tmp_path / "heat").iterdir())


def test_a_picture_longer_than_a_jpeg_can_be_keeps_its_verdict(
    bundle: Path, tmp_path: Path, long_png: bytes
) -> None:
    (tmp_path / "long.png").write_bytes(long_png)
    asked = ("detect", tmp_path / "long.png", "--model", bundle, "--format", "jsonl")
    alone, checked = (json.loads(run(*asked, *extra).stdout) for extra in ((), ("--stability",)))
    assert (alone["verdict"], checked["error"]) == ("real", None)
    assert checked["stability"]["verdicts"]["as it is"] == "real"
    done = run("record", tmp_path / "long.png", "--model", bundle, "--out", tmp_path / "record")
    assert (done.returncode, done.stderr) == (0, "")


def test_record_is_written_as_json_and_as_a_page(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    picture = folder / "a.png"
    twice = []
    for name in ("first", "second"):
        out = tmp_path / name
        done = run("record", picture, "--model", bundle, "--out", out)
        assert done.returncode == 0
        written = [out / "a.png.record.json", out / "a.png.record.html"]
        assert done.stdout.splitlines() == list(map(str, written))
        twice.append([path.read_bytes() for path in written])
    assert twice[0] == twice[1]
    tree = json.loads(twice[0][0])
    assert tree["input"]["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
    assert tree["result"]["verdict"] == "fake"
    page = tmp_path / "page.html"
    assert run("record", picture, "--model", bundle, "--out", page).returncode == 0
    assert page.read_bytes() == twice[0][1]


def test_record_of_a_bad_picture_is_exit_code_one(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    (folder / "text.jpg").write_text("hello")
    out = tmp_path / "records"
    for name, message in (("text.jpg", "not a picture"), ("none.jpg", "no such file")):
        done = run("record", folder / name, "--model", bundle, "--out", out)
        assert done.returncode == 1
        assert message in done.stderr
        assert done.stdout == ""
    assert not out.exists()
    wrong = run("record", folder / "a.png", "--model", bundle, "--out", folder / "text.jpg")
    assert wrong.returncode == 2
    assert "--out" in wrong.stderr


EXAMPLES = {
    "generated_general.png": ("fake", 0.950),
    "generated_landscape.png": ("unsure", 0.889),
    "generated_portrait.png": ("unsure", 0.137),
    "generated_studio.png": ("unsure", 0.731),
    "photo_astronaut.png": ("unsure", 0.160),
    "photo_chelsea.png": ("unsure", 0.212),
    "photo_coffee.png": ("unsure", 0.173),
    "photo_rocket.jpg": ("unsure", 0.132),
}
"""What `nano` says of them; between kinds of processors P(fake) differs by a few hundredths."""


def test_the_bundled_model_judges_the_examples() -> None:
    examples = Path(__file__).parents[2] / "examples"
    done = run("detect", examples, "--format", "jsonl")
    rows = {Path(row["path"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0
    assert {name: row["verdict"] for name, row in rows.items()} == {
        name: verdict for name, (verdict, _) in EXAMPLES.items()
    }
    assert {name: row["probability"] for name, row in rows.items()} == pytest.approx(
        {name: probability for name, (_, probability) in EXAMPLES.items()}, abs=0.05
    )
    stated = json.loads((load_bundle("nano").graph.parent / "bundle.json").read_text())
    about = stated["calibration"]
    for row in rows.values():
        odds = row["logit"] / about["temperature"] + about["bias"]
        assert row["probability"] == pytest.approx(1 / (1 + math.exp(-odds)), abs=2e-6)


def test_base_needs_no_torch() -> None:
    code = (
        "import sys; from distildire import Detector; import numpy as np;"
        "Detector().predict([np.zeros((64, 64, 3), np.uint8)]);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'pandas', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 0


def test_calibrate_by_kind_then_detect_with_a_kind(tmp_path: Path) -> None:
    """Pictures of the kind `phone` are smoother, nearer to fakes: their threshold lies higher."""
    rng = np.random.default_rng(0)
    rows = ["path,label,kind"]
    for name, label, kind, count, contrast in (
        ("phone", "real", "phone", 110, 6), ("scan", "real", "scan", 20, 14),
        ("fake", "fake", "", 60, 3),
    ):  # fmt: skip
        for i in range(count):
            spread = contrast * rng.uniform(0.8, 1.2)
            pixels = 120 + rng.normal(size=(160, 160, 3)) * spread
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{name}{i}.png")
            rows.append(f"{name}{i}.png,{label},{kind}")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(rows))
    model = make_bundle(tmp_path / "model")
    wrong = run("calibrate", model, manifest, "--by", "camera")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--by camera" in wrong.stderr
    done = run("calibrate", model, manifest, "--by", "kind", "--no-equalize",
               "--heatmap-check", "20")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for label in ("real", "fake"):
        assert f"the {label} pictures are of 1 source, of the 5" in done.stderr
    stated = json.loads((model / "bundle.json").read_text())["calibration"]["data"]
    assert stated == "1 source, as they are, confidence 0.8"
    heat = json.loads((model / "bundle.json").read_text())["heatmap"]
    assert heat["n"] > 2
    assert heat["sentence"] in done.stdout
    assert load_bundle(model).heatmap_note == heat["sentence"]
    assert "kind phone: 110 real and 0 fake pictures\n" in done.stdout
    assert "kind scan: 20 real and 0 fake pictures: too few real pictures" in done.stdout
    kinds = json.loads((model / "bundle.json").read_text())["calibration"]["kinds"]
    assert kinds["scan"].get("thresholds") is None

    own = Detector(model, kind="phone", threads=1)
    threshold = own.bundle.calibration.thresholds(0.2)[1]  # type: ignore[union-attr]
    assert threshold == pytest.approx(kinds["phone"]["real_quantiles"][160])
    assert own.verdict_of(threshold + 0.01, 0.2)[1] == "fake"
    asked = ("detect", tmp_path / "phone0.png", "--model", model, "--fpr", "0.2")
    lines = [run(*asked, "--format", "jsonl", *extra).stdout for extra in ((), ("--kind", "phone"))]
    plain, of_kind = map(json.loads, lines)
    assert [*plain, "kind"] == list(of_kind)
    assert of_kind["kind"] == "phone"
    assert plain["probability"] == of_kind["probability"]
    (row,) = csv.DictReader(run(*asked, "--kind", "phone", "--format", "csv").stdout.splitlines())
    assert row["kind"] == "phone"
    assert "kind" not in run(*asked, "--format", "csv").stdout.splitlines()[0]
    assert "110 real and 60 fake" in run(*asked, "--kind", "phone").stdout.replace("\n", " ")
    unknown = run(*asked, "--kind", "tablet")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "known are phone, scan" in unknown.stderr
