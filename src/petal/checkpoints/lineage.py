"""Copies, forks and prunes of threads, decided once for every store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import cast

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite

from petal.checkpoints.branches import is_given, names_in
from petal.checkpoints.chains import BUNDLE_MARK, Bundle, base_of
from petal.checkpoints.header import Header
from petal.checkpoints.langgraph.dialect import Key, Row
from petal.checkpoints.langgraph.lineage import outdated, past_of
from petal.checkpoints.notes import BRANCH, INPUT, Note, key_of
from petal.checkpoints.records import CheckpointQuery, CheckpointRow, Reader, Save, Status, Transaction, ValueRow
from petal.checkpoints.retention import Point, needed_by
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.threads import ThreadQuery
from petal.errors import CheckpointerError, CheckpointNotFoundError

_PAGE = 200


def delete_threads(change: Transaction, thread_ids: Sequence[str]) -> None:
    """Delete all that threads hold."""
    for thread_id in thread_ids:
        change.delete_thread(thread_id)


def copy_thread(change: Transaction, rows: Rows, source: str, target: str) -> None:
    """Copy a thread with its whole past, and the inputs that wait there for a run."""
    _require(change, source, target)
    _copy(change, rows, source, target, None, None)
    if waiting := change.strays(source):
        [status] = [info.status for info in change.threads(ThreadQuery(1, thread_id=source))] or [None]
        change.save(rows.moved(Save(writes=waiting, status=cast("Status | None", status)), target))


def fork_thread(change: Transaction, rows: Rows, source: str, checkpoint_id: str, target: str, *, failed: bool) -> None:
    """Copy a checkpoint of the root namespace with what led to it.

    Args:
        change: What it is all done in.
        rows: Opens and makes rows.
        source: The thread.
        checkpoint_id: The checkpoint.
        target: The new thread.
        failed: Whether a step failed there, though its writes may look like an open question.
    """
    _require(change, source, target)
    known = [lineage_of(row, rows) for row in checkpoints_of(change, source)]
    if ("", checkpoint_id) not in {row.key for row in known}:
        raise CheckpointNotFoundError(source, checkpoint_id)
    kept, written = past_of(known, checkpoint_id)
    _copy(change, rows, source, target, set(kept), set(written), {checkpoint_id} if failed else set())


def keep_latest(change: Transaction, rows: Rows, thread_ids: Sequence[str]) -> None:
    """Delete all but the newest state of each namespace, named ones, and but what those are rebuilt from."""
    for thread_id in thread_ids:
        found = {(row.ns, row.id): row for row in checkpoints_of(change, thread_id)}
        known = {key: lineage_of(row, rows) for key, row in found.items()}
        doomed = set(outdated(list(known.values())))
        if named := named_heads(change, rows, thread_id):
            doomed -= needed_by(points_of(found, rows), named)
        doomed -= rebuilt_from(known.keys() - doomed, known, headers_of(found, rows))
        forget_inputs(change, rows, thread_id, [found[key] for key in doomed])
        drop(change, rows, thread_id, found, doomed)


def forget_inputs(change: Transaction, rows: Rows, thread_id: str, gone: Iterable[CheckpointRow]) -> None:
    """Delete what is kept of inputs of which a pruned checkpoint told that they are over, since now none may tell."""
    if kept := change.notes(thread_id, INPUT):
        taken = max((rows.info(row).input_id or "" for row in gone if not row.ns), default="")
        over = [note.checkpoint_id for note in kept if note.checkpoint_id <= taken]
        change.delete_checkpoints(thread_id, "", over)


def delete_for_runs(change: Transaction, rows: Rows, run_ids: Sequence[str]) -> None:
    """Delete what runs saved, in whichever thread."""
    doomed: dict[str, set[Key]] = {}
    for thread_id, ns, id in change.threads_of_runs(run_ids):
        doomed.setdefault(thread_id, set()).add((ns, id))
    for thread_id, keys in doomed.items():
        found = {(row.ns, row.id): row for row in checkpoints_of(change, thread_id)}
        known = {key: lineage_of(row, rows) for key, row in found.items()}
        if keys & rebuilt_from(known.keys() - keys, known, headers_of(found, rows)):
            raise CheckpointerError(
                f"Thread {thread_id!r} has a DeltaChannel, whose value is rebuilt from checkpoints of these runs, "
                "so they cannot be deleted alone; nothing was changed. Delete the whole thread, or keep it."
            )
        drop(change, rows, thread_id, found, keys)


def delta_history(
    reader: Reader, rows: Rows, place: Namespace, id: str | None, channels: Sequence[str]
) -> Mapping[str, DeltaChannelHistory]:
    """What each delta channel is rebuilt from: writes on the way to a checkpoint, and the value they begin with.

    A loop of parents ends the way, as a missing one does.
    """
    history: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
    written: dict[str, list[PendingWrite]] = {channel: [] for channel in channels}
    remaining = set(channels)
    target = reader.checkpoint(place.thread_id, place.ns, id)
    parent = target.parent_id if target else None
    passed = {target.id} if target else set()
    while parent is not None and parent not in passed and remaining:
        row = reader.checkpoint(place.thread_id, place.ns, parent)
        if row is None:
            break
        passed.add(parent)
        header = rows.header(row)
        for write in reversed(reader.writes(place.thread_id, place.ns, [row.id])):
            if write.channel in remaining:
                written[write.channel].append(rows.write(write))
        seeds = {channel: header.spots[channel] for channel in remaining if channel in header.spots}
        wanted = [(channel, spot.root) for channel, spot in seeds.items()]
        chains = reader.chains(place.thread_id, place.ns, wanted) if seeds else []
        for channel, spot in seeds.items():
            version = rows.version(rows.chain(chains, channel, spot.root), place, channel, spot)
            history[channel]["seed"] = rows.value(place, channel, version.parts)
            remaining.discard(channel)
        parent = row.parent_id
    for channel, entry in history.items():
        entry["writes"] = written[channel][::-1]
    return history


def _require(change: Transaction, source: str, target: str) -> None:
    if not change.namespaces(source):
        raise CheckpointNotFoundError(source)
    if change.namespaces(target):
        raise CheckpointerError(
            f"Thread {target!r} already has checkpoints; name a thread that does not exist, or delete it first."
        )


def checkpoints_of(change: Reader, thread_id: str) -> Iterator[CheckpointRow]:
    """All checkpoints of a thread, newest first, a page at a time."""
    after = None
    while page := change.checkpoints(CheckpointQuery(thread_id=thread_id, after=after, limit=_PAGE)):
        yield from page
        after = page[-1].id, page[-1].thread_id, page[-1].ns
        if len(page) < _PAGE:
            return


def lineage_of(row: CheckpointRow, rows: Rows) -> Row:
    """What decides which checkpoints belong together."""
    metadata = rows.metadata(row)
    parents = metadata.get("parents") or {}
    return Row(
        ns=row.ns,
        id=row.id,
        parent=row.parent_id,
        root=parents.get("") if row.ns else None,
        run_id=row.run_id,
        delta=bool(metadata.get("counters_since_delta_snapshot")),
        sends=False,
    )


def points_of(found: Mapping[Key, CheckpointRow], rows: Rows) -> list[Point]:
    """Checkpoints, as far as it is told from them how they hang together."""
    return [Point.of(row.ns, row.id, row.parent_id, rows.metadata(row)) for row in found.values()]


def named_heads(reader: Reader, rows: Rows, thread_id: str) -> dict[str, bool]:
    """The root checkpoints of a thread that have names, and whether somebody gave one, rather than a rewind."""
    noted = [(row, key_of(row.task_id) or "") for row in reader.notes(thread_id, BRANCH)]
    found = [Note(row.thread_id, row.ns, row.checkpoint_id, key, rows.write(row)[2]) for row, key in noted]
    heads: dict[str, bool] = {}
    for note in names_in(found).values():
        heads[note.checkpoint_id] = heads.get(note.checkpoint_id, False) or is_given(note)
    return heads


def headers_of(found: Mapping[Key, CheckpointRow], rows: Rows) -> Callable[[Key], Header]:
    """Opens headers, each once."""
    return cache(lambda key: rows.header(found[key]))


def rebuilt_from(keys: Collection[Key], known: Mapping[Key, Row], header: Callable[[Key], Header]) -> set[Key]:
    """The ancestors that the delta channels of some checkpoints are rebuilt from; a loop of parents has an end."""
    needed: set[Key] = set()
    for key in keys:
        if not known[key].delta:
            continue
        missing = {channel for channel in header(key).versions if channel not in header(key).spots}
        at, passed = known[key], {key}
        while missing and at.parent is not None and (before := (at.ns, at.parent)) in known and before not in passed:
            at = known[before]
            passed.add(before)
            needed.add(before)
            missing -= header(before).spots.keys()
    return needed


def _copy(
    change: Transaction,
    rows: Rows,
    source: str,
    target: str,
    kept: Collection[Key] | None,
    written: Collection[Key] | None,
    failed: Collection[str] = (),
) -> None:
    """Copy checkpoints with the values they need, oldest first; None stands for all.

    Where a step failed after it had asked, the writes don't say what came last; for the head the index does.
    """
    failed = {*failed} | {
        info.checkpoint_id for info in change.threads(ThreadQuery(1, status="failed", thread_id=source))
    }
    for ns in change.namespaces(source):
        found = [
            row for row in checkpoints_of(change, source) if row.ns == ns and (kept is None or (row.ns, row.id) in kept)
        ]
        values = change.all_values(source, ns)
        if kept is not None:
            values = _reachable(values, [rows.header(row) for row in found], rows)
        change.save(rows.moved(Save(values=values), target))
        for row in reversed(found):
            copied = written is None or (row.ns, row.id) in written
            writes = change.writes(source, ns, [row.id]) if copied else []
            header = rows.header(row)
            status = None if ns else "failed" if copied and row.id in failed else rows.status(header, writes)
            save = Save(labelled(row, change), writes=list(writes), status=status, now=time_of(header))
            change.save(rows.moved(save, target))
    change.recount(target)


def labelled(row: CheckpointRow, change: Transaction) -> CheckpointRow:
    """A checkpoint's row with its labels."""
    return replace(row, labels=change.labels(row.thread_id, row.ns, row.id))


def time_of(header: Header) -> str:
    """When a checkpoint was made, for the index of threads; "" stands for now where it does not tell."""
    try:
        made = datetime.fromisoformat(header.checkpoint["ts"])
    except ValueError:
        return ""
    return "" if made.tzinfo is None else made.isoformat()


def drop(
    change: Transaction, rows: Rows, thread_id: str, found: Mapping[Key, CheckpointRow], doomed: Collection[Key]
) -> None:
    """Delete checkpoints, and the values that none of those that stay needs."""
    if not doomed:
        return
    for ns in {ns for ns, _ in doomed}:
        change.delete_checkpoints(thread_id, ns, [id for at, id in doomed if at == ns])
        for (at, id), row in found.items():
            if at == ns and (at, id) not in doomed and row.parent_id is not None and (at, row.parent_id) in doomed:
                first = rows.without_parent(labelled(row, change))
                change.save(Save(first, now=time_of(rows.header(row))))
        headers = [rows.header(row) for (at, id), row in found.items() if at == ns and (at, id) not in doomed]
        values = change.all_values(thread_id, ns)
        needed = {(row.channel, row.root, row.version) for row in _reachable(values, headers, rows)}
        gone = [row for row in values if (row.channel, row.root, row.version) not in needed]
        change.delete_values(thread_id, ns, [(row.channel, row.version) for row in gone])
    change.recount(thread_id)


def _reachable(values: Sequence[ValueRow], headers: Sequence[Header], rows: Rows) -> list[ValueRow]:
    """The value rows that checkpoints are read from."""
    reach = Reach(values, rows)
    needed = {(row.channel, row.version): row for header in headers for row in reach.add(header)}
    return list(needed.values())


class Reach:
    """Finds the value rows that checkpoints are read from: each that they name, and what it is a change of."""

    def __init__(self, values: Iterable[ValueRow], rows: Rows) -> None:
        self._chains: dict[tuple[str, str], _Lying] = {}
        self._passed: set[tuple[str, str]] = set()
        for row in values:
            self._chains.setdefault((row.channel, row.root), _Lying(rows)).add(row)

    def add(self, header: Header) -> Iterator[ValueRow]:
        """The rows of a checkpoint which those before did not need; a bundle comes once for each of its rows."""
        for channel, spot in header.spots.items():
            at: str | None = spot.row
            while at is not None and (channel, at) not in self._passed and (channel, spot.root) in self._chains:
                self._passed.add((channel, at))
                if (found := self._chains[channel, spot.root].find(at)) is None:
                    break
                row, at = found
                yield row


class _Lying:
    """Where the rows of one chain lie: alone, or in bundles, which are opened only when one is missed."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._alone: dict[str, ValueRow] = {}
        self._bundles: list[ValueRow] = []
        self._bundled: dict[str, tuple[ValueRow, str]] = {}

    def add(self, row: ValueRow) -> None:
        if row.version.startswith(BUNDLE_MARK):
            self._bundles.append(row)
        else:
            self._alone[row.version] = row

    def find(self, name: str) -> tuple[ValueRow, str | None] | None:
        """The row of the store that holds a row, and what that is a change of."""
        if (row := self._alone.get(name)) is not None:
            return row, base_of(self._rows.opened(row))
        while name not in self._bundled and self._bundles:
            bundle = self._bundles.pop()
            for inner, base in Bundle.unpacked(self._rows.opened(bundle)).based().items():
                self._bundled[inner] = bundle, base
        return self._bundled.get(name)


def bundle(change: Transaction, rows: Rows, place: Namespace, channel: str, names: Sequence[str], now: str) -> None:
    """Put rows that lie alone, newest first, into one, where they still do."""
    found = change.values(place.thread_id, place.ns, [(channel, name) for name in names])
    found.sort(key=lambda row: names.index(row.version), reverse=True)
    if len(found) > 1:
        change.save(Save(values=[rows.bundle(found)], now=now))
        change.delete_values(place.thread_id, place.ns, [(row.channel, row.version) for row in found])
