import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distildire import Detector
from distildire.bundle import load_bundle
from distildire.runtime import sessions


class Watched:
    """A session that takes its time and notes whether anyone else is in it."""

    opened: list["Watched"]

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
        time.sleep(0.02)
        self.inside -= 1
        return [np.zeros(len(feeds["rgb"]), np.float32)]


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    Watched.opened = []
    monkeypatch.setattr(sessions, "open_runner", lambda *args: Watched())
    return Watched


CROP = {"rgb": np.zeros((1, 8, 8, 3), np.uint8)}


def test_a_session_has_one_caller_at_a_time(bundle: Path) -> None:
    pool = sessions.Sessions(load_bundle(bundle), 1, 2)
    threads = [threading.Thread(target=pool.run, args=(["logit"], CROP)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Watched.opened) == 2
    assert sum(session.runs for session in Watched.opened) == 8
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


@pytest.mark.parametrize("given", [1, 3, 4, 9])
def test_every_run_is_of_one_size(bundle: Path, given: int) -> None:
    detector = Detector(bundle, threads=2)
    detector.warm_up()
    scores = detector.score_crops(np.zeros((given, 8, 8, 3), np.uint8))
    assert scores.shape == (given,)
    assert {size for session in Watched.opened for size in session.sizes} == {1}


def test_the_crops_of_a_single_picture_run_in_parallel(bundle: Path) -> None:
    detector = Detector(bundle, threads=2)
    detector.score_crops(np.zeros((8, 8, 8, 3), np.uint8))
    assert len(Watched.opened) == 2
    runs = [session.runs for session in Watched.opened]
    assert min(runs) >= 1
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
