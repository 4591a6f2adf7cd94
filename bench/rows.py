"""The rows of the table: which measures are shown, what they are called, in which unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bench.measures import Spread
from bench.results import Results


class Row(NamedTuple):
    """One measure of one workload.

    Attributes:
        relative_to: The candidate that it is told relative to, as so much more.
    """

    workload: str
    measure: str
    title: str
    shown: Callable[[float], str]
    relative_to: str | None = None

    def cell(self, results: Results, candidate: str) -> str:
        """Median and quartiles; a dash where there is nothing."""
        result = results.get(self.workload, candidate)
        if result is None:
            return "-"
        if result.failure:
            return "failed"
        if (spread := result.measures.spread(self.measure)) is None:
            return "-"
        if self.relative_to is not None:
            base = results.median(self.workload, self.relative_to, self.measure)
            if base is None or candidate == self.relative_to:
                return "-"
            spread = Spread(*(value / base - 1 for value in spread))
        median, low, high = map(self.shown, spread)
        mark = " *" if result.measures.notes else ""
        return (median if low == high else f"{median} ({low}..{high})") + mark


def milliseconds(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def megabytes(value: float) -> str:
    return f"{value / 1e6:.1f}" if value < 1e8 else f"{value / 1e6:.0f}"


def kilobytes(value: float) -> str:
    return f"{value / 1e3:.2f}"


def ratio(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def percent(value: float) -> str:
    return f"{value * 100:+.1f}"


def whole(value: float) -> str:
    return f"{value:.0f}"


def rows(turns: int) -> list[Row]:
    """The rows of a run whose chat has so many turns."""
    marks = sorted({mark for mark in (10, 100, 500, 1000) if mark < turns} | {turns})
    read = sorted({mark for mark in (500, 1000) if mark < turns} | {turns})
    table = [Row("a", f"turn_ms@{mark}", f"turn {mark:,}, ms", milliseconds) for mark in marks]
    table += [Row("a", f"turn_cpu_ms@{mark}", f"turn {mark:,}, CPU ms", milliseconds) for mark in marks]
    for mark in read:
        table += [
            Row("a", f"disk_bytes@{mark}", f"on disk after {mark:,}, MB", megabytes),
            Row("a", f"disk_per_said@{mark}", f"on disk per byte said, {mark:,}", ratio),
            Row("a", f"open_ms@{mark}", f"opening it, {mark:,}, ms", milliseconds),
            Row("a", f"head_ms@{mark}", f"head of {2 * mark:,} messages, cold, ms", milliseconds),
            Row("a", f"head_cpu_ms@{mark}", f"head of {2 * mark:,} messages, cold, CPU ms", milliseconds),
            Row("a", f"history_ms@{mark}", f"20 entries of history, {mark:,}, ms", milliseconds),
        ]
    for name in ("b1", "b2"):
        table += [
            Row(name, "turns_per_s", "turns a second", whole),
            Row(name, "cpu_ms_per_turn", "CPU a turn, ms", milliseconds),
            Row(name, "peak_bytes", "peak memory, MB", megabytes),
        ]
    return [
        *table,
        Row("c", "agent_ms@1", "1 thread: a turn, ms", milliseconds),
        Row("c", "agent_ms@1", "1 thread: overhead, %", percent, relative_to="none"),
        Row("c", "agent_ms@100", "100 threads: a turn of all, ms", milliseconds),
        Row("c", "agent_ms@100", "100 threads: overhead, %", percent, relative_to="none"),
        Row("c", "agent_cpu_ms@100", "100 threads: CPU a turn, ms", milliseconds),
        Row("d", "turns_per_s@8", "8 processes: turns a second", whole),
        Row("d", "errors@8", "8 processes: errors", whole),
        Row("d", "turns_per_s@4", "4 processes: turns a second", whole),
        Row("d", "errors@4", "4 processes: errors", whole),
        Row("e", "step_ms", "a step, ms", milliseconds),
        Row("e", "step_bytes", "on disk a step, KB", kilobytes),
    ]
