"""The plan's closed form in cases that can be done in the head, and the simulation against it."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("simpy", reason="SimPy is not installed (extra dev)")
from scale_plan.model import Costs, Job, Machine, Store
from scale_plan.run import measured, plans
from scale_plan.simulate import Trouble, simulate

COSTS = Costs(decode=0.03, network=0.02, gpu=0.001, driver=1e-5, row_bytes=100.0)
MACHINE = Machine(cores=10, price=2.0)
FAST = Store(listed=1e9, latency=1e-6)
JOB = Job(1e6, 1e5, 4, MACHINE, COSTS, FAST)


def test_cores_set_the_rate() -> None:
    plan = JOB.plan()
    assert plan.slowest == "cores"
    assert plan.rate == pytest.approx(4 * 10 / 0.05)
    assert plan.hours == pytest.approx(1e6 / 800 / 3600)
    assert plan.price == pytest.approx(4 * 2.0 * 1e6 / 800 / 3600)
    assert plan.result_bytes == 1e8


@pytest.mark.parametrize(
    ("change", "slowest", "rate"),
    [
        ({"store": Store(listed=500.0, latency=1e-6)}, "listing", 500.0),
        ({"store": Store(listed=1e9, latency=1.0, at_once=2)}, "small files", 80.0),
        ({"store": Store(listed=500.0, latency=1.0, pictures=1000)}, "cores", 800.0),
        ({"picture_bytes": 1e8}, "bandwidth", 50.0),
        ({"picture_bytes": 1e7, "store": replace(FAST, pictures=9)}, "shards", 125.0),
        ({"costs": replace(COSTS, driver=0.01)}, "driver", 100.0),
        ({"machine": replace(MACHINE, gpus=1)}, "decode", 40 / 0.03),
        ({"machine": replace(MACHINE, gpus=1), "costs": replace(COSTS, gpu=0.1)}, "gpu", 40.0),
    ],
)
def test_the_slowest_stage_sets_it(change: dict[str, object], slowest: str, rate: float) -> None:
    plan = replace(JOB, **change).plan()
    assert plan.slowest == slowest
    assert plan.rate == pytest.approx(rate)


def test_where_more_machines_add_nothing() -> None:
    job = replace(JOB, costs=replace(COSTS, driver=1e-3))
    assert job.bends() == 5  # 1000 rows a second, 200 per machine
    before, at, after = (replace(job, machines=n).plan() for n in (4, 5, 6))
    assert before.rate < at.rate == after.rate
    assert after.slowest == "driver"


def test_without_trouble_the_simulation_is_the_closed_form() -> None:
    for change in ({}, {"costs": replace(COSTS, driver=0.01)}, {"machines": 1}):
        job = replace(JOB, pictures=200_000, **change)
        outcome = simulate(job)
        assert outcome.rows == 200_000
        assert (outcome.again, outcome.lost) == (0, 0)
        assert outcome.seconds == pytest.approx(job.plan().hours * 3600, rel=0.06)
        assert outcome.seconds >= job.plan().hours * 3600


def test_stragglers_cost_their_share() -> None:
    job = replace(JOB, pictures=200_000)
    outcome = simulate(job, Trouble(slow_share=0.5, slow_factor=2.0))
    # Two machines at 200 and two at 100 a second; the end waits for the last block at half pace.
    ideal = 200_000 / 600
    assert ideal <= outcome.seconds <= ideal + 2 * 256 * 0.05 + 5


def test_lost_machines_lose_no_row() -> None:
    job = replace(JOB, pictures=200_000)
    for seed in range(3):
        outcome = simulate(job, Trouble(lost_every=150.0, noticed=10.0, back=20.0), seed=seed)
        assert outcome.rows == 200_000
        assert outcome.lost > 0
        assert outcome.again > 0
        assert job.plan().hours * 3600 < outcome.seconds < 3 * job.plan().hours * 3600


def test_the_measured_costs_make_a_plan() -> None:
    costs, content = measured()
    assert content["points"]
    rows = list(plans(1e9, costs))
    assert any(row.get("") for row in rows)
    planned = [row for row in rows if "days" in row]
    assert all(float(row["days"].replace(",", "")) > 0 for row in planned)
    (left,) = (row for row in rows if row not in planned)
    assert left["machines"] == "1 of 16 cores, a GPU"
    assert left["a second"] == "not measured"


def test_what_is_no_number_is_refused() -> None:
    for wrong in (float("inf"), float("nan"), -1.0):
        with pytest.raises(ValueError, match="the price of a machine"):
            replace(MACHINE, price=wrong)
        with pytest.raises(ValueError, match="pictures: give"):
            replace(JOB, pictures=wrong)
