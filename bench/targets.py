"""What Petal means to reach, and whether a run did, each against others of the same run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bench.results import Results

COMPARED = "for comparison"


class Verdict(NamedTuple):
    """One target: what was found, what it should be, whether it is; None if it was not measured."""

    title: str
    found: str
    wanted: str
    met: bool | None


def verdicts(results: Results) -> Iterator[Verdict]:
    """Every target."""
    at = "turn_ms@500"
    theirs, floor = results.median("a", "lg-sqlite", at), results.median("a", "floor", at)
    ours = results.median("a", "petal-sqlite", at)
    yield _at_least("(a) turn 500: faster than LangGraph's SQLite saver", _quotient(theirs, ours), 8)
    yield _at_most("(a) turn 500: of the floor", _quotient(ours, floor), 8)
    for name, title in (("petal-sqlite", "SQLite"), ("petal-postgres", "PostgreSQL")):
        for turns in (500, 1000):
            said = results.median("a", name, f"disk_per_said@{turns}")
            yield _at_most(f"(a) on disk per byte said, {title}, {turns:,} turns", said, 5)
    for name, title in (("petal-sqlite", "SQLite"), ("petal-postgres", "PostgreSQL")):
        head = results.median("a", name, "head_ms@500")
        met = None if head is None else head < 10
        yield Verdict(
            f"(a) head of 1,000 messages, cold, {title}", "-" if head is None else f"{head:.1f} ms", "< 10 ms", met
        )
    for workload, shape in (("b1", "2,000 threads"), ("b2", "200 threads")):
        most = results.median(workload, "floor", "turns_per_s")
        for name, title, share in (
            ("petal-sqlite", "SQLite", 0.8),
            ("least-sqlite", "the least on SQLite", None),
            ("petal-postgres", "PostgreSQL", 0.7),
            ("least-postgres", "the least on PostgreSQL", None),
        ):
            reached = _quotient(results.median(workload, name, "turns_per_s"), most)
            yield Verdict(
                f"(b) {shape}: of the floor's turns a second, {title}",
                "-" if reached is None else f"{reached:.0%}",
                COMPARED if share is None else f"≥ {share:.0%}",
                None if reached is None or share is None else reached >= share,
            )
    for threads in (1, 100):
        base = results.median("c", "none", f"agent_ms@{threads}")
        for name, title in (
            ("petal-sqlite", "SQLite"),
            ("least-sqlite", "the least on SQLite"),
            ("petal-postgres", "PostgreSQL"),
            ("least-postgres", "the least on PostgreSQL"),
            ("floor", "the floor"),
        ):
            times = _quotient(results.median("c", name, f"agent_ms@{threads}"), base)
            yield Verdict(
                f"(c) overhead at {threads} thread{'s' if threads > 1 else ''}, {title}",
                "-" if times is None else f"{times - 1:+.1%}",
                "< 5%" if name.startswith("petal") else COMPARED,
                times - 1 < 0.05 if times is not None and name.startswith("petal") else None,
            )
    for name, title, count in (("petal-sqlite", "8 on SQLite", 8), ("petal-postgres", "4 on PostgreSQL", 4)):
        errors = results.median("d", name, f"errors@{count}")
        yield Verdict(
            f"(d) errors of processes, {title}",
            "-" if errors is None else f"{errors:.0f}",
            "0",
            None if errors is None else errors == 0,
        )


def _quotient(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value / base


def _at_least(title: str, found: float | None, wanted: float) -> Verdict:
    return Verdict(title, _times(found), f"≥ {wanted:g} times", None if found is None else found >= wanted)


def _at_most(title: str, found: float | None, wanted: float) -> Verdict:
    return Verdict(title, _times(found), f"≤ {wanted:g} times", None if found is None else found <= wanted)


def _times(found: float | None) -> str:
    return "-" if found is None else f"{found:.1f} times"
