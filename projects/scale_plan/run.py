"""What a billion pictures take: the tables of docs/scale.md, from measured costs.

PYTHONPATH=projects python -m scale_plan.run --out OUT [--pictures 1e9] [--seeds 5]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from distildire.io.html_page import markdown_table
from scale_plan.model import Costs, Job, Machine, Store
from scale_plan.simulate import Trouble, simulate

MEASURED = Path(__file__).parent / "measured.json"

PICTURE_BYTES = 200e3
"""Of a photograph on the web, about."""

CPU = Machine(cores=16, price=0.70)
"""16 cores; prices are assumptions of this plan, an hour, to be replaced by one's own."""
GPU = Machine(cores=16, price=4.0, gpus=1, bandwidth=2.5e9)

LOOSE, SHARDS = Store(), Store(pictures=5000)

TROUBLES = {
    "none": Trouble(),
    "a tenth of the machines take twice as long": Trouble(slow_share=0.1, slow_factor=2.0),
    "a machine lives a day": Trouble(lost_every=86_400.0, open=5.0),
    "a machine lives an hour": Trouble(lost_every=3_600.0, open=5.0),
}

SIMULATED = 4e6
"""Pictures of the simulated job: the same fleet, for a part of the time."""


def measured() -> tuple[Costs, dict[str, Any]]:
    """(costs, the whole file) of measured.json."""
    content = json.loads(MEASURED.read_text())
    return Costs(**content["costs"]), content


def check(points: list[dict[str, Any]], costs: Costs) -> Iterator[dict[str, str]]:
    """Each measured rate beside the model's, of the same cores (or of a point's own costs)."""
    for point in points:
        own = replace(costs, **point.get("costs", {}))
        each = own.decode + own.network
        model = point["cores"] / each
        yield {
            "run": point["run"],
            "cores": str(point["cores"]),
            "pictures": f"{point['pictures']:,}",
            "measured, a second": f"{point['rate']:.1f}",
            "model": f"{model:.1f}",
            "measured / model": f"{point['rate'] / model:.2f}",
        }


def plans(pictures: float, costs: Costs) -> Iterator[dict[str, str]]:
    """The job on more and more machines, from loose files and from shards."""
    for kind, machine in (("16 cores", CPU), ("16 cores, a GPU", GPU)):
        if machine.gpus and not costs.gpu:
            yield {"machines": f"1 of {kind}", "from": "either", "a second": "not measured"}
            continue
        for where, store in (("loose files", LOOSE), ("tar shards", SHARDS)):
            job = Job(pictures, PICTURE_BYTES, 1, machine, costs, store)
            bends = job.bends()
            for count in sorted({1, 10, 100, bends}):
                plan = replace(job, machines=count).plan()
                yield {
                    "machines": f"{count} of {kind}",
                    "from": where,
                    "a second": f"{plan.rate:,.0f}",
                    "slowest": plan.slowest,
                    "days": f"{plan.hours / 24:,.1f}",
                    "price": f"{plan.price:,.0f}",
                    "": "more add nothing" if count == bends else "",
                }


def troubles(costs: Costs, seeds: int, machines: int = 20) -> Iterator[dict[str, str]]:
    """The simulated job in trouble, against the closed form's time without any."""
    job = Job(SIMULATED, PICTURE_BYTES, machines, CPU, costs, LOOSE)
    ideal = job.plan().hours * 3600
    for name, trouble in TROUBLES.items():
        runs = [simulate(job, trouble, seed=seed) for seed in range(seeds)]
        worst = max(run.seconds for run in runs)
        mean = sum(run.seconds for run in runs) / seeds
        yield {
            "trouble": name,
            "time / closed form": f"{mean / ideal:.3f}",
            "worst of the seeds": f"{worst / ideal:.3f}",
            "machines lost": f"{sum(run.lost for run in runs) / seeds:.1f}",
            "scored in vain": f"{sum(run.again for run in runs) / seeds / SIMULATED:.3%}",
        }


def main() -> None:
    """Write plan.md and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=float, default=1e9)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    costs, content = measured()
    try:
        plan = Job(args.pictures, PICTURE_BYTES, 1, CPU, costs, LOOSE).plan()
    except ValueError as error:
        parser.error(str(error))
    text = "\n".join(
        [
            markdown_table(list(check(content["points"], costs))),
            markdown_table(list(plans(args.pictures, costs))),
            markdown_table(list(troubles(costs, args.seeds))),
            f"Rows: {plan.result_bytes / 1e9:,.0f} GB; memory of a driver that resumes near the "
            f"end: {plan.driver_bytes / 1e9:,.0f} GB.\n",
        ]
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "plan.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
