from __future__ import annotations

import pytest

from distildire.scale.pace import Pace, cost_per_million, spoken


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
