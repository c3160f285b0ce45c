import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from distildire import Detector, sessions
from distildire.bundle import load_bundle


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
    monkeypatch.setattr(sessions, "open_session", lambda *args: Watched())
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


def test_a_caller_who_won_t_wait_gets_nothing(bundle: Path) -> None:
    pool = sessions.Sessions(load_bundle(bundle), 1, 1)
    other = threading.Thread(target=pool.run, args=(["logit"], CROP))
    other.start()
    while other.is_alive() and not Watched.opened[0].inside:
        time.sleep(0.001)
    assert pool.run_if_free(["logit"], CROP) is None
    other.join()
    assert pool.run_if_free(["logit"], CROP) is not None


def test_a_session_that_fails_stays_in_use(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = sessions.Sessions(load_bundle(bundle), 1, 1)
    with monkeypatch.context() as broken:
        broken.setattr(Watched, "run", lambda *args: 1 / 0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                pool.run(["logit"], CROP)
    assert pool.run_if_free(["logit"], CROP) is not None
    assert len(Watched.opened) == 1


@pytest.mark.parametrize("given", [1, 3, 4, 9])
def test_every_run_is_of_one_size(bundle: Path, given: int) -> None:
    detector = Detector(bundle, threads=2)
    detector.warm_up()
    scores = detector.score_crops(np.zeros((given, 8, 8, 3), np.uint8))
    assert scores.shape == (given,)
    size = sessions.run_size(detector.bundle)
    assert {size for session in Watched.opened for size in session.sizes} == {size}


def test_many_views_are_run_in_equal_parts(bundle: Path) -> None:
    whole = load_bundle(bundle)
    for crops, halves, size in ((1, 0, 1), (2, 2, 4), (5, 0, 5), (4, 2, 3), (5, 5, 5), (5, 2, 4)):
        cut = replace(whole.preprocessing, crops=crops, halves=halves)
        assert sessions.run_size(replace(whole, preprocessing=cut)) == size
