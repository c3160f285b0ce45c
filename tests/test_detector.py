import hashlib
import io
import json
import multiprocessing
import os
import pickle
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import standin
from distildire import Detector
from distildire.bundle import Bundle, BundleError, bundled, load_bundle
from distildire.explain.record import make_record
from distildire.io.cores import usable_cores
from distildire.io.pictures import ImageError
from distildire.io.preprocessing import Preprocessing
from distildire.runtime.engines import open_runner
from distildire.runtime.sessions import Sessions
from made_pictures import saved
from provenance.made_files import SETTINGS, TERMS, exif, segment, xmp


def test_logit_is_the_mean_over_crops(detector: Detector, busy: np.ndarray) -> None:
    crops = detector.bundle.preprocessing(busy)
    assert detector.logit(busy) == pytest.approx(standin.expected_logit(crops).mean(), abs=1e-3)


def test_verdicts_keep_order_and_name_errors(
    detector: Detector, flat: np.ndarray, busy: np.ndarray, tmp_path: Path
) -> None:
    good = tmp_path / "Überwachung im März.png"
    Image.fromarray(busy).save(good)
    (tmp_path / "empty.jpg").write_bytes(b"")
    items = [good, flat, tmp_path / "empty.jpg", good.read_bytes(), Image.fromarray(flat), 3]
    verdicts = detector.predict(items)  # type: ignore[arg-type]
    assert [v.verdict for v in verdicts] == ["real", "fake", None, "real", "fake", None]
    assert verdicts[0].path == str(good)
    assert verdicts[0].sha256 == hashlib.sha256(good.read_bytes()).hexdigest()
    assert verdicts[3].sha256 == verdicts[0].sha256
    assert (verdicts[1].width, verdicts[1].height) == (flat.shape[1], flat.shape[0])
    assert "empty" in (verdicts[2].error or "")
    assert "cannot decode a int" in (verdicts[5].error or "")
    assert verdicts[2].probability is verdicts[2].logit is verdicts[2].width is None
    assert list(verdicts[0].to_dict()) == [
        "path", "sha256", "probability", "logit", "verdict", "model", "width", "height", "error",
        "note", "declares", "model_sha256", "fpr",
    ]  # fmt: skip


def test_a_score_that_is_no_number_is_an_error(
    detector: Detector, busy: np.ndarray, flat: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model of half precision that overflows on some pictures."""
    bright = np.maximum(busy, 220)
    run_graph = Detector.run_graph

    def overflowing(
        self: Detector, output: str, crops: np.ndarray, *, alone: bool = True
    ) -> np.ndarray:
        found = run_graph(self, output, crops, alone=alone)
        found[crops.mean(axis=(1, 2, 3)) > 200] = np.nan
        return found

    monkeypatch.setattr(Detector, "run_graph", overflowing)
    first, second, third = detector.predict([flat, bright, busy])
    assert (first.verdict, third.verdict) == ("fake", "real")
    assert second.error == "the model gives no number for it"
    assert second.verdict is second.probability is second.logit is None
    with pytest.raises(ImageError, match="gives no number"):
        detector.logit(bright)
    with pytest.raises(ImageError, match="gives no number"):
        make_record(detector, saved(Image.fromarray(bright), "PNG"))


def test_batching_changes_nothing(detector: Detector) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        rng.integers(0, high, (180, 200 + i, 3), dtype=np.uint8)
        for i, high in enumerate(range(5, 60, 5))
    ]
    together = [v.logit for v in detector.predict(pictures)]
    alone = [detector.logit(p) for p in pictures]
    assert together == pytest.approx(alone, abs=1e-4)


def test_scores_are_those_of_the_plain_graph(detector: Detector) -> None:
    crop = detector.bundle.preprocessing.crop
    crops = np.random.default_rng(1).integers(0, 255, (7, crop, crop, 3)).astype(np.uint8)
    plain = open_runner(detector.bundle, "cpu", 1)
    for output in sorted(detector.graph_outputs):
        expected = plain.run([output], {"rgb": crops})[0]
        for alone in (False, True):
            values = detector.run_graph(output, crops, alone=alone)
            np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_one_item_needs_no_list(detector: Detector, flat: np.ndarray) -> None:
    assert len(detector.predict(flat)) == 1
    assert len(detector.predict("absent.jpg")) == 1


def test_budget_moves_the_verdict(detector: Detector) -> None:
    below, above = detector.bundle.calibration.thresholds(0.01)  # type: ignore[union-attr]
    middle = (below + above) / 2
    assert detector.verdict_of(middle)[1] == "unsure"
    assert detector.verdict_of(above + 0.01)[1] == "fake"
    assert detector.verdict_of(below - 0.01)[1] == "real"
    assert detector.verdict_of(above - 0.2, fpr=0.4)[1] == "fake"


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_all_cores_at_one_crop_give_the_number_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    class Noted(Sessions):
        def __init__(self, bundle: Bundle, threads: int, most: int, device: str) -> None:
            opened.append(threads)
            super().__init__(bundle, threads, most, device)

    monkeypatch.setattr("distildire.detector.Sessions", Noted)
    one, two = Detector("nano", threads=1), Detector("nano", threads=2)
    side = one.bundle.preprocessing.crop
    crops = np.random.default_rng(3).integers(0, 256, (1, side, side, 3)).astype(np.uint8)
    assert two.score_crops(crops, alone=False) == one.score_crops(crops)
    assert opened == [1, 1]
    assert two.score_crops(crops) == one.score_crops(crops)
    assert opened == [1, 1, 2]


def test_a_path_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "nano").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models")
    for path in ("./nano", "../models/nano"):
        with pytest.raises(BundleError, match=r"bundle\.json is missing"):
            load_bundle(path)
    assert load_bundle("nano").name == "nano"


def test_a_folder_that_an_installed_model_hides_is_told_of(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    load_bundle("nano")
    assert not caplog.messages
    shutil.copytree(copy, "nano")
    assert load_bundle("nano").name == "nano"
    assert load_bundle("./nano").name == "standin"
    assert caplog.messages == [
        "nano: the installed model is taken, not the folder of that name: give ./nano for it"
    ]


def test_a_bundle_of_openvino_stays_one_when_it_is_saved(tmp_path: Path) -> None:
    hashes = {}
    for name in ("model.xml", "model.bin"):
        (tmp_path / name).write_text(name)
        hashes[name] = hashlib.sha256(name.encode()).hexdigest()
    Bundle("ir", tmp_path, "0" * 64, Preprocessing(), openvino=hashes).save()
    found = load_bundle(tmp_path)
    assert found.is_ir
    found.save()
    assert load_bundle(tmp_path) == found


def test_damaged_and_foreign_bundles_are_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such model"):
        load_bundle("no-such-model")
    (tmp_path / "bare").mkdir()
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        load_bundle(tmp_path / "bare")
    calibration = json.loads((copy / "bundle.json").read_text())["calibration"]
    edit(copy, calibration={**calibration, "weights_sha256": "0" * 64})
    with pytest.raises(BundleError, match="other weights"):
        load_bundle(copy)
    edit(copy, calibration=None)
    with pytest.raises(BundleError, match=rf"^{re.escape(str(copy))}: not calibrated"):
        Detector(copy).predict([])
    black = np.zeros((200, 200, 3), np.uint8)
    expected = standin.expected_logit(black[None, :160, :160])[0]
    assert Detector(copy).logit(black) == pytest.approx(expected, abs=1e-4)
    edit(copy, format=99)
    with pytest.raises(BundleError, match="newer"):
        load_bundle(copy)
    for heatmap in (["no guide"], {}, {"sentence": 3}):
        edit(copy, format=1, heatmap=heatmap)
        with pytest.raises(BundleError, match="damaged"):
            load_bundle(copy)
    for wrong in ({"temperature": "1"}, {"kinds": [1]}, {"real_quantiles": [1, 0]}, {"bias": None}):
        edit(copy, heatmap=None, calibration=calibration | wrong)
        with pytest.raises(BundleError, match=f"damaged: .*{next(iter(wrong))}"):
            load_bundle(copy)
    for name in ("", "x" * 101, "two\nlines"):
        edit(copy, name=name, calibration=None)
        with pytest.raises(BundleError, match=r"bundle\.name"):
            load_bundle(copy)
    edit(copy, name="standin")
    for wrong in ({"crop": 1e9}, {"crop": 10**6}, {"short_side": 0}, {"enlarge": 1}):
        edit(copy, calibration=None, preprocessing=wrong)
        with pytest.raises(BundleError, match=f"damaged: .*{next(iter(wrong))}"):
            load_bundle(copy)
    edit(copy, format=1, preprocessing={"crop": 160, "colour": "sepia"})
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(copy)
    (copy / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="can't be read"):
        load_bundle(copy)


def test_changed_weights_are_noticed(copy: Path) -> None:
    graph = copy / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[-3] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleError, match="hash differs"):
        load_bundle(copy)
    graph.unlink()
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        load_bundle(copy)


def test_the_bundled_model_leans_the_right_way_on_the_examples() -> None:
    """Eight pictures measure nothing, but swapped classes would turn their order round."""
    examples = Path(__file__).parents[1] / "examples"
    detector = Detector("nano")

    def mean_logit(pattern: str) -> float:
        verdicts = detector.predict(sorted(examples.glob(pattern)))
        assert len(verdicts) == 4
        return float(np.mean([v.logit for v in verdicts]))

    assert mean_logit("generated_*") > mean_logit("photo_*")


def test_each_item_has_its_row_whatever_it_is(detector: Detector, flat: np.ndarray) -> None:
    broken = Image.open(io.BytesIO(_jpeg(flat)[:-400]))
    items = [None, flat, broken, 5, _jpeg(flat), Path("/no/such/file.png"), flat]
    verdicts = detector.predict(items)
    assert [v.error is None for v in verdicts] == [False, True, False, False, True, False, True]
    assert "NoneType" in str(verdicts[0].error)
    assert "truncated" in str(verdicts[2].error)
    assert "int" in str(verdicts[3].error)
    assert [v.error is None for v in detector.stream(iter(items))] == [
        v.error is None for v in verdicts
    ]


def test_single_pictures_of_many_kinds(detector: Detector, flat: np.ndarray) -> None:
    data = _jpeg(flat)
    logit = detector.predict(data)[0].logit
    for one in (bytearray(data), memoryview(data), io.BytesIO(data)):
        assert [v.logit for v in detector.predict(one)] == [logit]
    with pytest.raises(TypeError, match="give paths, bytes"):
        detector.predict(5)


def test_open_files_and_path_likes(detector: Detector, flat: np.ndarray, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(flat).save(buffer, "PNG")  # stands at its end
    (tmp_path / "flat.png").write_bytes(buffer.getvalue())
    with os.scandir(tmp_path) as found:
        entry = next(found)  # an os.PathLike that is no Path
    text, *rows = detector.predict([io.StringIO("flat.png"), buffer, buffer, entry])
    assert "binary mode" in str(text.error)
    assert len({row.logit for row in rows}) == 1
    assert rows[0].logit is not None
    assert rows[2].path == str(tmp_path / "flat.png")
    assert detector.predict(entry)[0].logit == rows[0].logit


class Nameless(os.PathLike[str]):
    """A path that can't say its name."""

    def __init__(self, name: object = None) -> None:
        self.name = name

    def __fspath__(self) -> str:
        if self.name is None:
            raise RuntimeError("no name")
        return self.name  # type: ignore[return-value]


def test_a_path_that_has_no_name_costs_itself_alone(detector: Detector, fake_png: bytes) -> None:
    raising, wrong, whole = detector.predict([Nameless(), Nameless(3), fake_png])
    assert raising.error == "no name"
    assert "int" in str(wrong.error)
    assert whole.verdict == "fake"
    assert detector.predict(Nameless())[0].error == "no name"


def test_what_shows_nothing_is_never_real(detector: Detector) -> None:
    (white,) = detector.predict(np.full((300, 300, 3), 255, np.uint8))
    assert white.verdict == "unsure"
    assert white.note is not None
    assert "nothing to judge" in white.note
    assert white.probability == 0.5
    assert white.error is None


def test_a_claim_inside_a_file_moves_no_score(detector: Detector, busy: np.ndarray) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("parameters", SETTINGS)
    pixels, buffers = Image.fromarray(busy), [io.BytesIO() for _ in range(3)]
    pixels.save(buffers[0], "PNG")
    pixels.save(buffers[1], "PNG", pnginfo=about)
    pixels.save(buffers[2], "JPEG", quality=95)
    png, claiming, jpeg = (buffer.getvalue() for buffer in buffers)
    packet = xmp(f'Iptc4xmpExt:DigitalSourceType="{TERMS}trainedAlgorithmicMedia"')
    camera = exif({0x010F: "Canon", 0x0110: "Canon EOS R5"}, {0x927C: bytes(range(1, 80))})
    claims = {
        "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet),
        "EXIF": segment(0xE1, exif({0x0131: "Midjourney"})),
        "camera": segment(0xE1, camera),
        "comment": segment(0xFE, SETTINGS.encode()),
    }
    for plain, claimed in (
        (png, [claiming]),
        (jpeg, [jpeg[:2] + claim + jpeg[2:] for claim in claims.values()]),  # the same scan
    ):
        without, *others = detector.predict([plain, *claimed])
        assert without.declares is None
        for verdict in others:
            assert verdict.declares is not None
            assert verdict.logit == without.logit
            assert verdict.probability == without.probability
            assert verdict.verdict == without.verdict == "real"


def test_rows_name_the_model_and_the_budget(detector: Detector, flat: np.ndarray) -> None:
    for verdict in detector.predict([flat, None], fpr=0.05):
        assert verdict.model_sha256 == detector.bundle.sha256
        assert verdict.fpr == 0.05


@pytest.mark.parametrize("crops", [1, 2])  # a lone crop takes a session with threads of its own
def test_a_fork_and_a_pickle_judge_alike(tmp_path: Path, flat: np.ndarray, crops: int) -> None:
    detector = Detector(standin.make_bundle(tmp_path, crops=crops), threads=2, fpr=0.05)
    detector.warm_up()
    logit = detector.predict(flat)[0].logit
    copy = pickle.loads(pickle.dumps(detector))
    assert copy.predict(flat)[0].logit == logit
    assert copy.predict(flat)[0].fpr == 0.05
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(_in_child, (detector, flat)).get(timeout=60)
    assert found == [logit] * 3
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # used before the fork, and not pickled on the way
        os.write(writer, repr(detector.predict(flat)[0].logit).encode())
        os._exit(0)
    ready, _, _ = select.select([reader], [], [], 60)
    assert ready, "the child hangs"
    assert float(os.read(reader, 100)) == logit
    os.waitpid(child, 0)


@pytest.mark.parametrize("use", ["detector.predict(rgb)", "del detector", ""])
def test_a_forked_child_ends(tmp_path: Path, use: str) -> None:
    """As a prefork server's worker does, with all that is cleared away at its end."""
    folder = standin.make_bundle(tmp_path, crops=1)
    code = f"""
import os, sys
import numpy as np
from distildire import Detector
detector, rgb = Detector({str(folder)!r}, threads=2), np.zeros((200, 200, 3), np.uint8)
detector.predict(rgb)
child = os.fork()
if child:
    sys.exit(os.waitpid(child, 0)[1])
{use}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _in_child(detector: Detector, rgb: np.ndarray) -> list[float | None]:
    return [verdict.logit for verdict in detector.predict([rgb] * 3)]


def _jpeg(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_container_s_quota_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    free = usable_cores(tmp_path)
    assert free == usable_cores(tmp_path / "none")
    older = tmp_path / "v1"
    (older / "cpu").mkdir(parents=True)
    (older / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    (older / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(older) == 1


def test_a_model_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.make_bundle(tmp_path / "other_model", name="other")
    (tmp_path / "other_model/__init__.py").write_text("def folder(): return __path__[0]\n")
    (tmp_path / "broken_model.py").write_text("raise RuntimeError('no such luck')\n")
    about = tmp_path / "other-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[distildire.models]\nother = other_model\nby_call = other_model:folder\n"
        "broken = broken_model\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"other", "by_call", "nano"} <= set(bundled())
    assert load_bundle("other").folder == load_bundle("by_call").folder == tmp_path / "other_model"
    with pytest.raises(BundleError, match="no such luck"):
        load_bundle("broken")


def test_a_model_of_another_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distildire.bundle.metadata.entry_points", lambda **_: [])
    with pytest.raises(BundleError, match=r"pip install distildire-base, or .* packages/"):
        Detector("base")


@pytest.mark.parametrize("threads", [0, -1])
def test_a_number_of_threads_that_is_none_is_refused(copy: Path, threads: int) -> None:
    with pytest.raises(ValueError, match=r"threads is .*give 1 or more"):
        Detector(copy, threads=threads)


def test_the_runtime_reports_to_nobody() -> None:
    code = "import distildire, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for chosen, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | chosen
        found = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True
        )
        assert found.stdout.strip() == expected
