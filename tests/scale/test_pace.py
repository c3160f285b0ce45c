from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest

from distildire.cli.score import pace_line
from distildire.scale.pace import Pace, cost_per_million, spoken
from distildire.scale.score import score
from distildire.scale.sources import items_of


def test_rate_and_time_left() -> None:
    pace = Pace(scored=200, present=300, total=1500, seconds=10.0)
    assert (pace.rate, pace.seconds_left) == (20.0, 50.0)
    assert str(pace) == "500 of 1,500, 20.0 a second, 50 s left"
    assert str(Pace(2, 0, None, 1.0)) == "2, 2.0 a second"


def test_times_as_people_say_them() -> None:
    assert [spoken(s) for s in (5, 600, 11100, 180000)] == [
        "5 s",
        "10 min",
        "3 h 05 min",
        "2 d 2 h",
    ]


def test_cost() -> None:
    """Ten a second on two cores: a million takes 100,000 s, 55.6 core-hours."""
    assert cost_per_million(0.04, 2, 36000, 3600.0) == pytest.approx(0.04 * 2e5 / 3600)


class Terminal(io.StringIO):
    """Takes what is drawn."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """As they can be read in the end."""
        return [line.rpartition("\r\033[K")[2] for line in self.getvalue().split("\n")]


def test_warnings_stand_above_the_line_which_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pace_line() as (draw, warn):
        assert draw is not None
        draw(Pace(3, 0, 9, 1.0))
        assert terminal.lines == ["pictures: 3 of 9, 3.0 a second, 2 s left"]
        warn("row 2: no path")
        draw(Pace(6, 0, 9, 2.0))
        logging.getLogger("distildire.scale.sources").warning("%s: left out", "s.tar")
        draw(Pace(9, 0, 9, 3.0))
    assert terminal.lines == ["distildire: row 2: no path", "distildire: s.tar: left out", ""]
    assert logging.getLogger("distildire").handlers == []


def test_what_was_there_already_costs_no_time(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is that of the listing: a minute for each file."""
    clock = [0.0]

    def slowly(*given: object) -> object:
        for item in items_of(folder):
            clock[0] += 60
            yield item

    class Clock:
        monotonic = staticmethod(lambda: clock[0])

    score(folder, tmp_path / "out", model=bundle)
    last = max(item.path for item in items_of(folder))
    Path(last).touch()
    monkeypatch.setattr("distildire.scale.score.items_of", slowly)
    monkeypatch.setattr("distildire.scale.score.time", Clock)
    paces: list[Pace] = []
    report = score(folder, tmp_path / "out", model=bundle, progress=paces.append)
    assert (report.scored, report.seconds) == (1, 0.0)
    assert [(p.present, p.seconds) for p in paces] == [(report.present, 0.0)]
