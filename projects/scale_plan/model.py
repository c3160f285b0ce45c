"""A scoring job in closed form: each stage's rate, the slowest of them, time, cost, storage.

Every picture passes the listing, the store, a worker and the driver, side by side with others:
the job goes at the rate of its slowest stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Machine:
    """One worker machine."""

    cores: int
    price: float
    """An hour of it."""
    gpus: int = 0
    bandwidth: float = 1.25e9
    """Bytes a second from the store."""

    def __post_init__(self) -> None:
        if not 0 <= self.price < math.inf:
            raise ValueError(f"the price of a machine is {self.price}: give a number from 0")


@dataclass(frozen=True)
class Costs:
    """What each stage takes, as measured; see measured.json."""

    decode: float
    """Core-seconds per picture: reading, decoding, cutting, the gate."""
    network: float
    """Core-seconds per picture, where cores run the network."""
    gpu: float = 0.0
    """GPU-seconds per picture, where GPUs do."""
    driver: float = 2e-5
    """Seconds per row of the one driver that writes all parts."""
    row_bytes: float = 150.0
    """Of a row in the parts."""
    done_bytes: float = 16.0
    """Of the driver's memory for each row that an earlier run has done."""


@dataclass(frozen=True)
class Store:
    """Where the pictures lie; figures of a large object store."""

    listed: float = 10_000.0
    """Names a second of one listing."""
    latency: float = 0.03
    """Seconds until the first byte of an object."""
    at_once: int = 4
    """Objects that a core waits for side by side."""
    pictures: int = 1
    """In one object: 1 for loose files, thousands for tar shards."""


@dataclass(frozen=True)
class Job:
    """So many pictures, on so many machines."""

    pictures: float
    picture_bytes: float
    machines: int
    machine: Machine
    costs: Costs
    store: Store

    def __post_init__(self) -> None:
        if not 0 < self.pictures < math.inf:
            raise ValueError(f"a job of {self.pictures} pictures: give a number above 0")

    def rates(self) -> dict[str, float]:
        """Pictures a second that each stage could pass.

        Of Ray's machines, one reads the shards and hands the pictures out.
        """
        machine, costs, store = self.machine, self.costs, self.store
        cores = self.machines * machine.cores
        if machine.gpus:
            rates = {
                "decode": cores / costs.decode,
                "gpu": self.machines * machine.gpus / costs.gpu,
            }
        else:
            rates = {"cores": cores / (costs.decode + costs.network)}
        if store.pictures > 1:
            rates["shards"] = machine.bandwidth / self.picture_bytes
        return rates | {
            "listing": store.listed * store.pictures,
            "small files": cores * store.at_once * store.pictures / store.latency,
            "bandwidth": self.machines * machine.bandwidth / self.picture_bytes,
            "driver": 1.0 / costs.driver,
        }

    def plan(self) -> Plan:
        """The job's figures."""
        rates = self.rates()
        slowest = min(rates, key=lambda stage: rates[stage])
        seconds = self.pictures / rates[slowest]
        return Plan(
            rate=rates[slowest],
            slowest=slowest,
            hours=seconds / 3600,
            price=self.machines * self.machine.price * seconds / 3600,
            result_bytes=self.pictures * self.costs.row_bytes,
            driver_bytes=self.pictures * self.costs.done_bytes,
        )

    def bends(self, most: int = 100_000) -> int:
        """Machines beyond which one more adds nothing; `most` where there is no such number."""
        rates = replace(self, machines=1).rates()
        alone = [stage for stage in ("listing", "shards", "driver") if stage in rates]
        fixed = min(rates[stage] for stage in alone)
        growing = min(rate for stage, rate in rates.items() if stage not in alone)
        return min(most, max(1, round(fixed / growing)))

    def over(self, machines: Iterator[int] | list[int]) -> Iterator[tuple[int, Plan]]:
        """The plan for each number of machines."""
        for count in machines:
            yield count, replace(self, machines=count).plan()


@dataclass(frozen=True)
class Plan:
    """What a job takes."""

    rate: float
    """Pictures a second."""
    slowest: str
    """The stage that sets the rate."""
    hours: float
    price: float
    """Of the worker machines."""
    result_bytes: float
    driver_bytes: float
    """Memory of the driver when the job is resumed near its end."""
