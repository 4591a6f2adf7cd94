"""One thread on its way into the target: what is there of it, and in which parts the rest comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from petal.checkpoints.conversion.source import Copying, Different
from petal.checkpoints.envelope import Envelope
from petal.checkpoints.langgraph.dialect import Key
from petal.checkpoints.lineage import checkpoints_of, labelled
from petal.checkpoints.records import Save, Transaction
from petal.checkpoints.threads import ThreadQuery
from petal.errors import CheckpointerError

MARK = "petal: converted"
"""Under this a label of a thread's newest checkpoint says what the source held when the thread was converted.

It is written in the same transaction as the thread's last part, so that a thread which has it is whole; it goes when
the thread is deleted, does not go along when it is copied to another id, and is no part of its metadata.
"""
BEGUN = "petal: being converted"
"""Under this a label of a thread's first checkpoint says that what follows may still be missing."""
PART = 200
"""How many checkpoints of a thread become durable together: a shorter one is there whole or not at all, and of a longer
one no more than these are copied again."""


class Copied(NamedTuple):
    """What became of a thread's checkpoints."""

    new: int
    there: int
    """How many an earlier call had brought."""


class ThreadCopy:
    """Copies one thread, or sees that it is there.

    Args:
        thread_id: The thread.
        copying: It in the source.
        envelope: What makes the target's labels.
        where: The target as a URL.
        tell: Told how many checkpoints are done.
    """

    def __init__(
        self, thread_id: str, copying: Copying, envelope: Envelope, where: str, tell: Callable[[int], object]
    ) -> None:
        self._thread_id, self._copying, self._where, self._tell = thread_id, copying, where, tell
        self._mark = envelope.label(MARK, copying.fingerprint)
        self._marks = envelope.labels_for_search(MARK, copying.fingerprint)
        self._begun, self._beginnings = envelope.label(BEGUN, True), envelope.labels_for_search(BEGUN, True)

    def parts(self) -> Iterator[Callable[[Transaction], Copied | None]]:
        """What to do, each in a transaction of its own; where nothing is to be copied, the first one returns None."""
        for at in range(0, len(self._copying.order) or 1, PART):
            yield partial(self._part, at)

    def _part(self, at: int, change: Transaction) -> Copied | None:
        is_there = at > 0 or bool(change.threads(ThreadQuery(1, thread_id=self._thread_id)))
        if at == 0 and is_there and not self._goes_on(change):
            return None
        keys = self._copying.order[at : at + PART]
        there = [key for key in keys if is_there and change.checkpoint(self._thread_id, *key) is not None]
        with self._same():
            self._copying.compare(change, there, lambda done: self._tell(at + done))
        missing = [key for key in keys if key not in set(there)]
        is_last = at + PART >= len(self._copying.order)
        with self._read_back():
            self._copying.copy(change, missing, lambda done: self._tell(at + len(there) + done))
            if is_last:
                self._copying.end(change, copies=True)
        if is_last and at:
            with self._same():
                self._require_no_more(change)
            self._label(change, self._copying.order[0], without=self._beginnings)
        elif at == 0 and not is_last:
            self._label(change, self._copying.order[0], self._begun)
        if is_last and keys:
            self._label(change, self._copying.head, self._mark)
        return Copied(len(missing), len(there))

    def _goes_on(self, change: Transaction) -> bool:
        """Whether the thread, which is there, is to be copied on: if not, it is whole."""
        if not set(self._marks).isdisjoint(change.labels(self._thread_id, *self._copying.head)):
            return False
        with self._same():
            first = [label for key in self._copying.order[:1] for label in change.labels(self._thread_id, *key)]
            if not set(self._beginnings).isdisjoint(first):
                self._require_no_more(change)
                return True
            self._copying.compare(change, self._copying.order, self._tell)
            self._copying.end(change, copies=False)
            self._require_no_more(change)
        return False

    def _require_no_more(self, change: Transaction) -> None:
        """See that the target holds no checkpoint that the source does not."""
        known = set(self._copying.order)
        if any((row.ns, row.id) not in known for row in checkpoints_of(change, self._thread_id)):
            raise Different(f"the number of checkpoints of thread {self._thread_id!r}")

    def _label(self, change: Transaction, key: Key, *labels: bytes, without: Iterable[bytes] = ()) -> None:
        """Give a checkpoint labels and take others from it, and change nothing else."""
        row = change.checkpoint(self._thread_id, *key)
        (info,) = change.threads(ThreadQuery(1, thread_id=self._thread_id))
        assert row is not None
        row = labelled(row, change)
        row = replace(row, labels=tuple({*row.labels, *labels}.difference(without)))
        change.save(Save(row, now="" if info.updated is None else info.updated.isoformat()))

    @contextmanager
    def _same(self) -> Iterator[None]:
        try:
            yield
        except Different as different:
            raise CheckpointerError(
                f"Thread {self._thread_id!r} is in {self._where} already, and {different.what} is not the "
                "same there: it was used after it was converted, or before. Delete it there to convert it anew, "
                "or name another target."
            ) from None

    @contextmanager
    def _read_back(self) -> Iterator[None]:
        try:
            yield
        except Different as different:
            raise CheckpointerError(
                f"{different.what} was not read back from {self._where} as it was written. The thread was not "
                "converted whole."
            ) from None
