"""How fast a run goes, how long it will take, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Where a run stands."""

    scored: int
    """Items of this run."""
    present: int
    """Items that were done before."""
    total: int | None
    """Items of the source, where it is known."""
    seconds: float
    """Since the run came to the first item that it scores."""

    @property
    def rate(self) -> float:
        """Items a second in this run."""
        return self.scored / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None where the total is not known."""
        if self.total is None or not self.rate:
            return None
        return max(0, self.total - self.scored - self.present) / self.rate

    def __str__(self) -> str:
        whole = "" if self.total is None else f" of {self.total:,}"
        text = f"{self.scored + self.present:,}{whole}, {self.rate:.1f} a second"
        left = self.seconds_left
        return text if left is None else f"{text}, {spoken(left)} left"


def spoken(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`, `4 d 2 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def cost_per_million(price: float, cores: int, scored: int, seconds: float) -> float:
    """What a million pictures cost, at `price` a core-hour, as this run went."""
    return price * cores * seconds / 3600 / scored * 1e6
