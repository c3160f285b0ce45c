import shutil
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from distildire import Detector
from distildire.bundle import BundleError, load_bundle
from distildire.cli import main
from distildire.cli.hook import main as hook
from distildire.runtime import sessions


class Watched:
    """A session that notes whether anyone else is in it, and waits for another if told so."""

    opened: list["Watched"]
    together: threading.Barrier | None

    def __init__(self) -> None:
        self.inside, self.met, self.runs = 0, False, 0
        self.sizes: list[int] = []
        self.opened.append(self)

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="logit")]

    def run(self, names: list[str], feeds: dict[str, np.ndarray], options: object = None) -> list:
        self.inside += 1
        self.met |= self.inside > 1
        self.runs += 1
        self.sizes.append(len(feeds["rgb"]))
        if self.together is not None:
            self.together.wait(60)
        time.sleep(0.02)  # for others to come who should not
        self.inside -= 1
        return [np.zeros(len(feeds["rgb"]), np.float32)]


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    Watched.opened, Watched.together = [], None
    monkeypatch.setattr(sessions, "open_runner", lambda *args: Watched())
    return Watched


CROP = {"rgb": np.zeros((1, 8, 8, 3), np.uint8)}


def test_a_session_has_one_caller_at_a_time(bundle: Path) -> None:
    pool = sessions.Sessions(load_bundle(bundle), 1, 2)
    Watched.together = threading.Barrier(2)
    threads = [threading.Thread(target=pool.run, args=(["logit"], CROP)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [session.runs for session in Watched.opened] == [4, 4]
    assert not any(session.met for session in Watched.opened)


def test_one_caller_opens_one_session(bundle: Path) -> None:
    pool = sessions.Sessions(load_bundle(bundle), 1, 4)
    for _ in range(5):
        pool.run(["logit"], CROP)
    assert len(Watched.opened) == 1
    pool.warm_up()
    assert [session.runs for session in Watched.opened] == [6, 1, 1, 1]


def test_a_session_that_fails_stays_in_use(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = sessions.Sessions(load_bundle(bundle), 1, 1)
    with monkeypatch.context() as broken:
        broken.setattr(Watched, "run", lambda *args: 1 / 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                pool.run(["logit"], CROP)
    assert pool.run(["logit"], CROP)
    assert len(Watched.opened) == 1


FULL = [
    EPFail("CUDA failure 2:\n out of memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]
"""Of ONNX Runtime, and of torch and OpenVINO."""


def failing_after(monkeypatch: pytest.MonkeyPatch, runs: int, error: Exception) -> None:
    """Let the device do so many runs, and no more."""
    whole, done = Watched.run, iter(range(runs))

    def run(*args: object) -> list:
        if next(done, None) is None:
            raise error
        return whole(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Watched, "run", run)


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("device", ["cpu", "cuda", "openvino"])
def test_a_device_that_fails_is_one_sentence_with_the_mend(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, device: str, error: Exception
) -> None:
    pool = sessions.Sessions(load_bundle(bundle), 1, 1, device)
    failing_after(monkeypatch, 0, error)
    for use in (lambda: pool.run(["logit"], CROP), pool.warm_up):
        with pytest.raises(BundleError) as caught:
            use()
        said = str(caught.value)
        assert f"device {device} failed (" in said
        assert "out of memory" in said
        assert "\n" not in said
        assert said.endswith(sessions.DEVICE_MENDS[device])
        assert caught.value.__cause__ is error


def test_a_device_that_fails_when_it_is_opened(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(sessions, "open_runner", full)
    with pytest.raises(BundleError, match="device cuda failed"):
        Detector(bundle, device="cuda")


@pytest.mark.parametrize("options", [(), ("--stability",)], ids=str)
def test_a_device_that_fails_ends_the_run_and_costs_no_row_each(
    folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...],
) -> None:  # fmt: skip
    """Bad files have rows with an error; the files after a device that died have no rows."""
    monkeypatch.chdir(folder)
    (folder / "0.png").write_text("no picture")
    failing_after(monkeypatch, 0, FULL[0])
    command = ["distildire", "detect", ".", "--model", str(bundle), "--format", "jsonl"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", "o.jsonl", *options])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err.startswith("distildire: standin: device cpu failed (CUDA failure 2: out of")
    assert said.err.count("\n") == 1
    assert Path("o.jsonl").read_text().count("\n") == 1
    assert "not a picture" in Path("o.jsonl").read_text()


def test_a_device_that_fails_later_than_the_verdict(
    folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A stability check that it can't do is no fault of the picture."""
    judged = Detector(bundle, threads=1)
    judged.predict(folder / "a.png")
    failing_after(monkeypatch, sum(session.runs for session in Watched.opened), FULL[0])
    command = ["distildire", "detect", str(folder / "a.png"), "--model", str(bundle)]
    monkeypatch.setattr(sys, "argv", [*command, "--stability"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "device cpu failed" in capsys.readouterr().err


def test_a_device_that_fails_leaves_what_was_scored(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    from distildire.scale.score import score

    for i in range(20):
        shutil.copy(folder / "a.png", folder / f"{i:02d}.png")
    out = tmp_path / "parts"
    monkeypatch.setattr("distildire.scale.score.usable_cores", lambda: 1)
    with monkeypatch.context() as failing:
        failing_after(failing, 15, FULL[1])
        with pytest.raises(BundleError, match="device cpu failed"):
            score(folder, out, model=bundle)
    rows = [row for part in out.glob("part-*") for row in pq.read_table(part).to_pylist()]
    assert [row["error"] for row in rows] == [None] * 7  # of two crops each
    assert score(folder, out, model=bundle).scored == 22 - 7


def test_a_device_that_fails_under_a_video(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], flat: np.ndarray,
) -> None:  # fmt: skip
    pytest.importorskip("av")
    from clips import write_clip

    file = write_clip(tmp_path / "a.mp4", [flat] * 3)
    failing_after(monkeypatch, 0, FULL[0])
    monkeypatch.setattr(sys, "argv", ["distildire", "detect", str(file), "--model", str(bundle)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "device cpu failed" in capsys.readouterr().err


def test_a_device_that_fails_under_the_hook(
    folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing_after(monkeypatch, 0, FULL[0])
    assert hook([str(folder / "a.png"), "--model", str(bundle), "--fpr", "0.05"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("given", [1, 3, 4, 9])
def test_every_run_is_of_one_size(bundle: Path, given: int) -> None:
    detector = Detector(bundle, threads=2)
    detector.warm_up()
    scores = detector.score_crops(np.zeros((given, 8, 8, 3), np.uint8))
    assert scores.shape == (given,)
    assert {size for session in Watched.opened for size in session.sizes} == {1}


def test_the_crops_of_a_single_picture_run_in_parallel(bundle: Path) -> None:
    detector = Detector(bundle, threads=2)
    Watched.together = threading.Barrier(2)
    detector.score_crops(np.zeros((8, 8, 8, 3), np.uint8))
    runs = [session.runs for session in Watched.opened]
    assert runs == [4, 4]
    Watched.together = None
    assert not any(session.met for session in Watched.opened)
    detector.score_crops(np.zeros((8, 8, 8, 3), np.uint8), alone=False)
    assert sorted(session.runs for session in Watched.opened)[-1] > max(runs)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_score_is_the_same_on_any_number_of_cores(threads: int) -> None:
    rng = np.random.default_rng(0)
    flat = np.full((2, 192, 192, 3), 128, np.uint8)
    crops = np.concatenate([rng.integers(0, 256, (2, 192, 192, 3), dtype=np.uint8), flat])
    alone = [float(Detector("nano", threads=2).score_crops(crop[None])[0]) for crop in crops]
    together = Detector("nano", threads=threads).score_crops(crops)
    np.testing.assert_allclose(together, alone, atol=1e-5)
