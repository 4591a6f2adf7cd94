"""`petal threads history`: the checkpoints of a thread, each line of them apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petal.cli.databases import opened
from petal.cli.options import AsJson, Debug, KeptBy, KeptDatabase, ThreadId, at_least_one
from petal.cli.rendering import clock, print_json, print_table, printable
from petal.cli.shortening import shortened, whole_thread
from petal.cli.snapshots import Snapshot, history
from petal.cli.states import point_json

if TYPE_CHECKING:
    from petal.checkpoints.lines import Line

LONGEST = 60
"""Characters that are shown of what was said."""


@dataclass(frozen=True, slots=True)
class Told:
    """A line of a thread, as it is shown: its newest checkpoints, each with its parent."""

    line: Line
    points: Sequence[tuple[Snapshot, Snapshot | None]]


def show_history(
    thread: ThreadId,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", parser=at_least_one, help="Checkpoints of each line at most.")
    ] = 50,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List a thread's checkpoints, the newest first, and what led to each.

    A thread that was rewound, edited or run on from its past has several lines: that of the latest state comes first,
    then the others, each down to where it parted.
    """
    from petal.checkpoints.branches import by_checkpoint
    from petal.checkpoints.lines import asurvey, lines_of

    with opened(db, agent) as saver:
        thread_id = whole_thread(saver, thread)
        tree, noted = asyncio.run(asurvey(saver, thread_id))
        lines, names = lines_of(tree, noted), by_checkpoint(noted)
        told = [Told(line, list(history(saver, thread_id, line.checkpoints[:limit]))) for line in lines]
    if as_json:
        print_json([entry for one in told for entry in _json(one, names)])
    else:
        _print(told, names)


def _json(told: Told, names: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    of_line = {"line": told.line.checkpoint_id, "parted": told.line.parted}
    return [
        {
            **point_json(snapshot),
            "did": snapshot.did(parent),
            "said": snapshot.said,
            "names": names.get(snapshot.id, []),
            **of_line,
        }
        for snapshot, parent in told.points
    ]


def _print(told: Sequence[Told], names: Mapping[str, Sequence[str]]) -> None:
    known = [snapshot.id for one in told for snapshot, _ in one.points]
    named = [one.line.parted for one in told] + [snapshot.repeats for one in told for snapshot, _ in one.points]
    known += [id for id in named if id is not None]
    short = dict(zip(known, shortened(known), strict=True)).__getitem__
    for number, one in enumerate(told):
        if len(told) > 1:
            print(printable(f"\n{_title(one.line, short)}" if number else _title(one.line, short)))
        _print_line(one, names, short)


def _title(line: Line, short: Callable[[str], str]) -> str:
    if line.is_head:
        return "The line of the latest state:"
    name = f"Branch {', '.join(line.names)}" if line.names else "A line without a name"
    return f"{name}:" if line.parted is None else f"{name}, parted at {short(line.parted)}:"


def _print_line(told: Told, names: Mapping[str, Sequence[str]], short: Callable[[str], str]) -> None:
    rows = [
        (
            short(snapshot.id),
            clock(snapshot.time),
            "" if snapshot.step is None else str(snapshot.step),
            snapshot.source,
            _did(snapshot, parent, short),
            ", ".join(names.get(snapshot.id, ())),
        )
        for snapshot, parent in told.points
    ]
    columns = ("CHECKPOINT", "TIME", "STEP", "SOURCE", "WHAT IT DID", "NAME")
    shown = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    print_table(columns[:shown], [row[:shown] for row in rows])


def _did(snapshot: Snapshot, parent: Snapshot | None, short: Callable[[str], str]) -> str:
    if snapshot.repeats is not None:
        return f"went back to {short(snapshot.repeats)}"
    said = " ".join((snapshot.said or "").split())
    if len(said) > LONGEST:
        said = f"{said[: LONGEST - 1]}…"
    return f"{snapshot.did(parent)}: {said}" if said else snapshot.did(parent)
