"""Counters in the Prometheus text format (version 0.0.4)."""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

Labels = tuple[tuple[str, str], ...]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counter:
    """A number that only rises, one for each set of labels."""

    kind = "counter"

    def __init__(self) -> None:
        self._values: dict[Labels, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Raise the number of these labels."""
        with self._lock:
            self._values[tuple(sorted(labels.items()))] += amount

    def lines(self, name: str) -> Iterator[str]:
        """The samples."""
        with self._lock:
            values = sorted(self._values.items())
        for labels, value in values:
            yield f"{name}{_labels(labels)} {value:g}"


class Histogram:
    """Counts of observations at or under each bound."""

    kind = "histogram"

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Add one observation."""
        with self._lock:
            self._counts[bisect.bisect_left(self._bounds, value)] += 1
            self._sum += value

    def lines(self, name: str) -> Iterator[str]:
        """Cumulative buckets, sum and count."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        running = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
            running += count
            yield f'{name}_bucket{{le="{bound}"}} {running}'
        yield f"{name}_sum {total:.6f}"
        yield f"{name}_count {running}"


class Gauge:
    """A number read at the moment it is asked for."""

    kind = "gauge"

    def __init__(self, read: Callable[[], float], **labels: str) -> None:
        self._read = read
        self._labels = tuple(sorted(labels.items()))

    def lines(self, name: str) -> Iterator[str]:
        """The sample."""
        yield f"{name}{_labels(self._labels)} {self._read():.15g}"


class Registry:
    """Named metrics with their help."""

    def __init__(self) -> None:
        self._metrics: dict[str, tuple[str, Counter | Histogram | Gauge]] = {}

    def counter(self, name: str, text: str) -> Counter:
        """A new counter."""
        counter = Counter()
        self._metrics[name] = (text, counter)
        return counter

    def histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        """A new histogram."""
        histogram = Histogram(bounds)
        self._metrics[name] = (text, histogram)
        return histogram

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """A new gauge."""
        self._metrics[name] = (text, Gauge(read, **labels))

    def render(self) -> str:
        """The whole exposition."""
        lines = []
        for name, (text, metric) in self._metrics.items():
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {metric.kind}", *metric.lines(name)]
        return "\n".join(lines) + "\n"


def resident_bytes(process: int | str = "self") -> float:
    """Resident memory of a process, this one by default; 0 where the system doesn't say."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return float(line.split()[1]) * 1024
    except OSError:
        pass
    return 0.0


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    quoted = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in labels
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in quoted) + "}"
