"""Looks at every row of threads, and reports each that is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from petal.checkpoints.lineage import checkpoints_of
from petal.checkpoints.records import CheckpointRow, Reader, ValueRow
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.threads import ThreadInfo, ThreadQuery
from petal.checkpoints.values import Spot
from petal.errors import CheckpointCorruptionError, CheckpointerError

T = TypeVar("T")

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Damage:
    """One row that cannot be read.

    Attributes:
        thread_id: The thread it belongs to.
        where: The row, with its checkpoint and channel.
        problem: What is wrong with it.
    """

    thread_id: str
    where: str
    problem: str


def damages(reader: Reader, rows: Rows, thread_id: str | None) -> Iterator[Damage]:
    """Everything that is damaged in a thread, or in all of them."""
    if thread_id is not None:
        yield from _thread_damages(reader, rows, thread_id)
        return
    last: ThreadInfo | None = None
    while page := reader.threads(ThreadQuery(_PAGE, last)):
        for thread in page:
            yield from _thread_damages(reader, rows, thread.thread_id)
        last = page[-1]


def _thread_damages(reader: Reader, rows: Rows, thread_id: str) -> Iterator[Damage]:
    seen: set[tuple[str, str, str]] = set()
    chains: dict[tuple[str, str, str], list[ValueRow]] = {}
    for row in checkpoints_of(reader, thread_id):
        found: list[Damage] = []
        _checkpoint_damages(reader, rows, row, seen, chains, found)
        yield from found
    for write in reader.strays(thread_id):
        try:
            rows.write(write)
        except CheckpointerError as error:
            yield _damage(thread_id, f"a write that waits at checkpoint {write.checkpoint_id!r}", error)


def _checkpoint_damages(
    reader: Reader,
    rows: Rows,
    row: CheckpointRow,
    seen: set[tuple[str, str, str]],
    chains: dict[tuple[str, str, str], list[ValueRow]],
    found: list[Damage],
) -> None:
    def look(act: Callable[[], T]) -> T | None:
        try:
            return act()
        except CheckpointerError as error:
            found.append(_damage(row.thread_id, f"checkpoint {row.id!r}", error))
        return None

    namespace = Namespace(row.thread_id, row.ns)
    look(lambda: rows.metadata(row))
    for write in reader.writes(row.thread_id, row.ns, [row.id]):
        look(lambda write=write: rows.write(write))  # type: ignore[misc]
    header = look(lambda: rows.header(row))
    if header is None:
        return
    for channel, spot in header.spots.items():
        if (row.ns, channel, spot.row) in seen:
            continue
        seen.add((row.ns, channel, spot.row))

        def read(channel: str = channel, spot: Spot = spot) -> None:
            key = row.ns, channel, spot.root
            if key not in chains:
                chains[key] = reader.chains(row.thread_id, row.ns, [(channel, spot.root)])
            made = rows.version(rows.chain(chains[key], channel, spot.root), namespace, channel, spot)
            rows.value(namespace, channel, made.parts)

        look(read)


def _damage(thread_id: str, where: str, error: CheckpointerError) -> Damage:
    if isinstance(error, CheckpointCorruptionError):
        return Damage(thread_id, error.where, error.problem)
    return Damage(thread_id, where, str(error))
