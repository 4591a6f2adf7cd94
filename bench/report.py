"""The report: one table, the targets, the plots, and what they were taken on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.candidates import CANDIDATES
from bench.measures import Measures
from bench.plots import bars, curves
from bench.results import Result, Results
from bench.rows import rows
from bench.targets import Verdict, verdicts
from bench.workloads import WORKLOADS

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PLOTS = DOCS / "benchmarks.md", DOCS / "benchmarks"

_ABOUT = """\
What keeping state costs, measured by `make bench` and written by it: medians, with quartiles in brackets, of several
runs, each in a process of its own, the candidates in turns. All candidates run the same graphs through their
asynchronous face with `durability="sync"`: a step begins when the one before is saved.

- **No checkpointer** keeps nothing; in a chat the caller passes all that was said so far with each turn.
- **The floor** is a saver that keeps the Python objects it is given, so it shows what LangGraph itself takes. In (d)
  each process has one of its own.
- **The least** is the floor with a row of 400 bytes on disk before each save returns: one thread writes those of all
  callers in one transaction, and wakes them. It lets that thread go on in time, and waits for an input with the first
  step, as Petal does; it encodes nothing and reads nothing back. So it shows what the promise itself costs in Python,
  whatever else a saver does.
- **LangGraph's** savers are as its documentation sets them up, PostgreSQL over a pool of 10 connections.
- **Petal's** are as they are by default: SQLite forces each transaction to the disk, as LangGraph's does.
  PostgreSQL runs on the same machine with `fsync` and `synchronous_commit` on, and clears away dead rows each second
  instead of each minute, since a chat here takes seconds instead of hours; what lies on its disk is measured after a
  round of that.

The workloads: (a) one chat whose user and assistant say 600 bytes each a turn; (b) chats of the same kind, 200 turns at
a time; CPU time is that of Python's process, not of the database server; (c) LangChain's `create_agent` with two tools
that it calls one after the other, so three answers of 300 ms and seven steps a turn; "a turn of all" is the time in
which each of 100 threads had one; (d) chats in 4 threads a process, all processes on one database; (e) a state of 20
channels of 1 KB, one of which is changed by each step. "Cold" is a new saver in a running process, after it has
been opened: opening is a row of its own.
"""


def write(results: Results) -> str:
    """Writes the page with its plots, and returns the table and the targets as text."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    plots = []
    for name, title, drawing in _drawings(results):
        (PLOTS / f"{name}.svg").write_text(drawing)
        plots += [f"![{title}](benchmarks/{name}.svg)", ""]
    table, reached = _table(results), _targets(list(verdicts(results)))
    remarks = list(_remarks(results))
    page = ["# Benchmarks", "", _ABOUT, "## Targets", "", *reached, "", "## All figures", "", *table, ""]
    page += [*remarks, "", "## Plots", "", *plots]
    PAGE.write_text("\n".join(page).rstrip() + "\n")
    return "\n".join([*table, "", *remarks, "", *reached])


def _table(results: Results) -> list[str]:
    turns = max((result.sizes["turns"] for result in results if result.workload == "a"), default=1000)
    names = [name for name in CANDIDATES if any(result.candidate == name for result in results)]
    lines = [["", *(CANDIDATES[name].title for name in names)]]
    workload = ""
    for row in rows(turns):
        cells = [row.cell(results, name) for name in names]
        if all(cell == "-" for cell in cells):
            continue
        if row.workload != workload:
            workload = row.workload
            lines.append([f"**({workload}) {WORKLOADS[workload].title}**", *("" for _ in names)])
        lines.append([row.title, *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(names) + 1)]
    written = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)) + "|"
    return [written[0], rule, *written[1:]]


def _targets(found: list[Verdict]) -> list[str]:
    said = {True: "met", False: "**not met**", None: "-"}
    lines = [["Target", "found", "wanted", ""]]
    lines += [[one.title, one.found, one.wanted, said[one.met]] for one in found]
    return [
        "| " + " | ".join(lines[0]) + " |",
        "|---|--:|--:|---|",
        *("| " + " | ".join(line) + " |" for line in lines[1:]),
    ]


def _remarks(results: Results) -> Iterator[str]:
    """Where and when it was measured, and what is not as it should be."""
    found: list[Result] = list(results)
    for machine in {tuple(sorted(result.machine.items())): result.machine for result in found}.values():
        versions = ", ".join(f"{name} {machine[name]}" for name in machine if name.startswith("langgraph"))
        yield (
            f"Measured with {machine['cores']} cores, {machine['system']}, Python {machine['python']}, SQLite "
            f"{machine['sqlite']}, {versions}; Petal's part in C was {machine['in_c']}. Forcing 4 KB to the disk took "
            f"{machine['fsync_ms']} ms; the load of the machine before it was {machine['load']}."
        )
        yield ""
    runs = sorted({result.run for result in found})
    if len(runs) == 1:
        yield f"All of it is from one run, {runs[0]}."
    else:
        yield "Not all of it is from one run:"
        yield ""
        for run in runs:
            parts = ", ".join(f"({result.workload}) {result.candidate}" for result in found if result.run == run)
            yield f"- {run}: {parts}"
    scales = {result.sizes["scale"] for result in found if result.workload != "a"} - {1.0}
    if scales:
        yield ""
        yield f"**Counts of (b) to (e) are scaled by {', '.join(map(str, sorted(scales)))}.**"
    notes = [
        f"- \\* ({result.workload}) {CANDIDATES[result.candidate].title}: {note}"
        for result in found
        for note in [*result.measures.notes, *([f"failed: {result.failure}"] if result.failure else [])]
    ]
    if notes:
        yield ""
        yield from notes


def _drawings(results: Results) -> Iterator[tuple[str, str, str]]:
    """Name, title and SVG of each plot that there is something for."""
    for name, series, title in (
        ("turn", "turn_ms", "(a) Milliseconds a turn, as the chat grows"),
        ("disk", "disk_bytes", "(a) Bytes on disk, as the chat grows: SQLite with its log"),
    ):
        lines = {
            candidate: (CANDIDATES[candidate].title, points)
            for candidate in CANDIDATES
            if (points := _measures(results, "a", candidate).series.get(series))
        }
        if lines:
            yield name, title, curves(title, "turns", lines)
    for name, workload, measure, title in (
        ("many", "b1", "turns_per_s", "(b) Turns a second, 2,000 threads of 3 turns"),
        ("long", "b2", "turns_per_s", "(b) Turns a second, 200 threads of 10 turns"),
        ("wide", "e", "step_ms", "(e) Milliseconds a step, one channel of 20 changes"),
    ):
        values = {
            candidate: (CANDIDATES[candidate].title, found, f"{found:,.0f}" if found > 50 else f"{found:.2f}")
            for candidate in CANDIDATES
            if (found := results.median(workload, candidate, measure)) is not None
        }
        if values:
            yield name, title, bars(title, values)
    for threads in (1, 100):
        base = results.median("c", "none", f"agent_ms@{threads}")
        overheads = {
            candidate: (CANDIDATES[candidate].title, found / base - 1, f"{found / base - 1:+.1%}")
            for candidate in CANDIDATES
            if base and (found := results.median("c", candidate, f"agent_ms@{threads}")) is not None
            if candidate != "none"
        }
        if overheads:
            title = f"(c) Overhead of an agent's turn, {threads} thread{'s' if threads > 1 else ''}"
            yield f"agent-{threads}", title, bars(title, overheads)


def _measures(results: Results, workload: str, candidate: str) -> Measures:
    result = results.get(workload, candidate)
    return result.measures if result else Measures()
