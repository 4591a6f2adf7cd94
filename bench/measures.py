"""What one run of a workload finds out, and how such runs are joined and summed up."""

from __future__ import annotations

import os
import resource
import statistics
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Self:
        """The spread of at least one sample."""
        found = sorted(samples)
        if len(found) == 1:
            return cls(found[0], found[0], found[0])
        low, median, high = statistics.quantiles(found, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(slots=True)
class Measures:
    """Samples by name, in the unit that the name ends with.

    Attributes:
        samples: E.g. `{"turn_ms@500": [3.1, 3.3]}`.
        series: Curves for the plots, as (x, y) points.
        notes: What a reader should know, e.g. that a run was stopped.
    """

    samples: dict[str, list[float]] = field(default_factory=dict)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, *values: float) -> None:
        """Add samples."""
        self.samples.setdefault(name, []).extend(values)

    def joined(self, other: Measures) -> Measures:
        """The samples of both; the curves of the later."""
        joined = Measures({name: list(values) for name, values in self.samples.items()})
        for name, values in other.samples.items():
            joined.add(name, *values)
        joined.series = {**self.series, **other.series}
        joined.notes = list(dict.fromkeys([*self.notes, *other.notes]))
        return joined

    def spread(self, name: str) -> Spread | None:
        """Median and quartiles of one measure; None if it was not taken."""
        values = self.samples.get(name)
        return Spread.of(values) if values else None

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """What `as_json` gave."""
        series = {name: [(x, y) for x, y in points] for name, points in data["series"].items()}
        return cls(data["samples"], series, data["notes"])


def peak_bytes() -> float:
    """The most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def file_bytes(file: str) -> int:
    """Size of an SQLite database with its write-ahead log."""
    return sum(os.path.getsize(name) for name in (file, f"{file}-wal") if os.path.exists(name))
