"""The same job event by event: machines that are slow, machines that are lost.

Actors take blocks of pictures; a block counts when the driver has written it. A machine that is
lost is noticed late, and its blocks are done again elsewhere, as Ray Data does.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from scale_plan.model import Job


@dataclass(frozen=True)
class Trouble:
    """What goes wrong; nothing by default."""

    slow_share: float = 0.0
    """Share of the machines that are stragglers."""
    slow_factor: float = 1.0
    """How many times longer they take."""
    lost_every: float = float("inf")
    """Mean seconds of a machine's life (exponential)."""
    noticed: float = 30.0
    """Seconds until a lost machine's work is given to others."""
    back: float = 300.0
    """Seconds until another machine has taken its place."""
    open: float = 0.0
    """Seconds in which an actor opens its model."""


@dataclass(frozen=True)
class Outcome:
    """Of one simulated job."""

    seconds: float
    rows: int
    """Written, each picture once."""
    again: int
    """Pictures scored in vain."""
    lost: int
    """Machines."""


def simulate(job: Job, trouble: Trouble = Trouble(), *, block: int = 256, seed: int = 0) -> Outcome:
    """Run the job; `block` pictures are an actor's piece of work.

    An actor is a core, or a GPU with its share of the cores.
    """
    return _Run(job, trouble, block, seed).outcome()


class _Run:
    def __init__(self, job: Job, trouble: Trouble, block: int, seed: int) -> None:
        self.job, self.trouble = job, trouble
        self.rng = np.random.default_rng(seed)
        self.env: Any = simpy.Environment()
        self.blocks: Any = simpy.Store(self.env)
        whole, rest = divmod(int(job.pictures), block)
        sizes = [block] * whole + [rest] * bool(rest)
        self.blocks.items.extend(enumerate(sizes))
        self.left = len(sizes)
        self.driver: Any = simpy.Resource(self.env, capacity=1)
        self.end: Any = self.env.event()
        self.rows = self.again = self.lost = 0
        actors = job.machine.gpus or job.machine.cores
        own = job.rates()
        working = {k: v for k, v in own.items() if k not in {"listing", "shards", "driver"}}
        self.each = job.machines * actors / min(working.values())
        slow = round(trouble.slow_share * job.machines)
        for number in range(job.machines):
            factor = trouble.slow_factor if number < slow else 1.0
            self.env.process(self._machine(actors, factor))

    def outcome(self) -> Outcome:
        self.env.run(until=self.end)
        return Outcome(self.env.now, self.rows, self.again, self.lost)

    def _machine(self, actors: int, factor: float) -> Generator[Any, Any, None]:
        while True:
            life = float(self.rng.exponential(self.trouble.lost_every))
            at_work = [self.env.process(self._actor(factor)) for _ in range(actors)]
            if life == float("inf"):
                return
            yield self.env.timeout(life)
            self.lost += 1
            for actor in at_work:
                actor.interrupt()
            yield self.env.timeout(self.trouble.back)

    def _actor(self, factor: float) -> Generator[Any, Any, None]:
        block, asked = None, None
        try:
            if self.trouble.open:
                yield self.env.timeout(self.trouble.open)
            while True:
                asked = self.blocks.get()
                block = yield asked
                yield self.env.timeout(block[1] * self.each * factor)
                self.env.process(self._write(block[1]))
                block = None
        except simpy.Interrupt:
            if block is not None:
                self.again += block[1]
                yield self.env.timeout(self.trouble.noticed)
                yield self.blocks.put(block)
            elif asked is not None and not asked.triggered:
                asked.cancel()
            elif asked is not None:  # handed over in this very moment
                yield self.blocks.put(asked.value)

    def _write(self, rows: int) -> Generator[Any, Any, None]:
        with self.driver.request() as turn:
            yield turn
            yield self.env.timeout(rows * self.job.costs.driver)
        self.rows += rows
        self.left -= 1
        if not self.left:
            self.end.succeed()
