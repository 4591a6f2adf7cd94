"""`convert`: a whole database copied into Petal's tables, thread by thread, and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any, assert_never

from typing_extensions import is_typeddict

from petal.checkpoints.annotations import types_in
from petal.checkpoints.codec import Codec
from petal.checkpoints.conversion.rows import PetalSource
from petal.checkpoints.conversion.source import Copying, Different, Source
from petal.checkpoints.conversion.tuples import LangGraphSource
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.records import Transaction
from petal.checkpoints.rows import Rows
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.savers import open_checkpointer
from petal.checkpoints.threads import ThreadInfo
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import CheckpointerConfigurationError, CheckpointerError, CheckpointerUnavailableError

MARK = "petal: converted"
"""Under this a label of a thread's newest checkpoint says what the source held when the thread was converted.

It is written in the same transaction as the thread, so that a thread which has it is whole; it goes when the thread is
deleted, does not go along when it is copied to another id, and is no part of its metadata.
"""
_LISTED = 10


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a conversion has come."""

    thread_id: str
    """The thread that was worked at last."""
    threads: int
    """Threads that are done."""
    of_threads: int
    checkpoints: int
    """Checkpoints that are done, those of the thread included."""
    of_checkpoints: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did."""

    threads: int
    """Threads that were copied."""
    checkpoints: int
    """Their checkpoints."""
    already: int
    """Threads that were there already, and are the same."""


class ThreadsNotConvertedError(CheckpointerError):
    """Some threads could not be converted; all others were.

    Attributes:
        failures: Why, by thread.
        done: What was converted all the same.
    """

    def __init__(self, failures: Mapping[str, CheckpointerError], done: Conversion) -> None:
        super().__init__(failures, done)
        self.failures, self.done = failures, done

    def __str__(self) -> str:
        listed = "".join(f"\n  {failure}" for failure in list(self.failures.values())[:_LISTED])
        more = f"\n  … and {len(self.failures) - _LISTED} more" if len(self.failures) > _LISTED else ""
        return f"{len(self.failures)} of the threads were not converted:{listed}{more}"


def convert(
    source: CheckpointerConfig | str | PetalSaver | LangGraphSaver,
    target: CheckpointerConfig | str | PetalSaver,
    *,
    allow: Iterable[Any] = (),
    progress: Callable[[Progress], object] | None = None,
) -> Conversion:
    """Copies all threads of a database into Petal's tables: each namespace, checkpoint, fork and pending write.

    A thread is one transaction: it is in the target whole, or not at all, whatever ends the process. What was written
    is read back and compared with the source before the transaction ends. When it is called again, it goes on: threads
    that an earlier call brought there are passed over. The source is only read; let no agent use it meanwhile.

    Args:
        source: LangGraph's tables or Petal's: a URL, a config, or an open saver.
        target: Where to: a URL, a config (with `encryption_key_env`, all is encrypted), or an open saver. Its tables
            are made if they are missing.
        allow: Types that the values hold beside plain data, messages and the standard library's; or annotations, such
            as a graph's state type, of which all types are allowed that they name. Needed for LangGraph's tables
            only: Petal's rows are copied without making the values.
        progress: Called after each checkpoint, on another thread, and after each thread. What it raises ends the
            conversion.

    Returns:
        What was copied, and what was there already.

    Raises:
        ThreadsNotConvertedError: If threads hold a type that is not allowed or a row that is damaged, or are in
            the target already and are not the same. Of such a thread nothing was written; all others are converted.
        CheckpointerUnavailableError: If one of the databases cannot be used.
        CheckpointerConfigurationError: If the target is not Petal's, or an encryption key is wrong or missing.
    """
    allowed = list(allow)
    types = [*types_in(*allowed), *(cls for cls in allowed if isinstance(cls, type) and not is_typeddict(cls))]
    with ExitStack() as stack:
        if not isinstance(target, PetalSaver):
            target = _target(target)
            stack.push(target)
        rows = _allowing(target._rows, types)
        if not isinstance(source, PetalSaver | LangGraphSaver):
            source = open_checkpointer(source, inspect=True)
            stack.push(source)
        return _Work(_source(source, rows, types), target, rows, progress).done()


class _Stopped(Exception):
    """Nobody waits for the conversion any more."""


class _Work:
    """One conversion."""

    def __init__(
        self, source: Source, target: PetalSaver, rows: Rows, progress: Callable[[Progress], object] | None
    ) -> None:
        self._source, self._target, self._rows, self._progress = source, target, rows, progress
        self._stopped = Event()
        self._of_threads = self._of_checkpoints = self._seen = self._checkpoints = 0

    def done(self) -> Conversion:
        self._target.threads(1)  # which makes its tables, also where there is nothing to copy
        for thread in self._source.threads():
            self._of_threads += 1
            self._of_checkpoints += thread.checkpoints
        failures: dict[str, CheckpointerError] = {}
        done = Conversion(0, 0, 0)
        for thread in self._source.threads():
            try:
                copied = self._thread(thread)
            except (CheckpointerUnavailableError, CheckpointerConfigurationError):
                raise
            except CheckpointerError as error:
                failures[thread.thread_id] = error
            else:
                done = (
                    replace(done, threads=done.threads + 1, checkpoints=done.checkpoints + copied)
                    if copied
                    else replace(done, already=done.already + 1)
                )
            self._seen += 1
            self._checkpoints += thread.checkpoints
            self._tell(thread.thread_id, 0)
        if failures:
            raise ThreadsNotConvertedError(failures, done)
        return done

    def _thread(self, thread: ThreadInfo) -> int:
        """How many checkpoints of a thread were copied; none if it is there already."""
        try:
            with self._source.copying(thread) as copying:
                return self._target._engine.change(partial(self._copied, thread, copying))
        except Exception:
            raise
        except BaseException:
            self._stopped.set()  # the journal is in the middle of a thread for which nobody waits any more
            raise
        finally:
            self._target._recall.forget(thread.thread_id)

    def _copied(self, thread: ThreadInfo, copying: Copying, change: Transaction) -> int:
        copied = 0

        def tick(done: int) -> None:
            nonlocal copied
            copied = done
            if self._stopped.is_set():
                raise _Stopped
            self._tell(thread.thread_id, done)

        envelope = self._rows.envelope
        if not change.namespaces(thread.thread_id):
            try:
                copying.copy(change, envelope.label(MARK, copying.fingerprint), tick)
            except Different as different:
                raise CheckpointerError(
                    f"{different.what} was not read back from {self._target.where} as it was written. Nothing of this "
                    "thread was converted."
                ) from None
            return copied
        marks = envelope.labels_for_search(MARK, copying.fingerprint)
        if set(marks).isdisjoint(change.labels(thread.thread_id, *copying.head)):
            try:
                copying.compare(change, tick)
            except Different as different:
                raise CheckpointerError(
                    f"Thread {thread.thread_id!r} is in {self._target.where} already, and {different.what} is not the "
                    "same there: it was used after it was converted, or before. Delete it there to convert it anew, "
                    "or name another target."
                ) from None
        return 0

    def _tell(self, thread_id: str, done: int) -> None:
        if self._progress is not None:
            done += self._checkpoints
            self._progress(Progress(thread_id, self._seen, self._of_threads, done, self._of_checkpoints))


def _source(saver: PetalSaver | LangGraphSaver, rows: Rows, types: Sequence[type]) -> Source:
    match saver:
        case PetalSaver():
            return PetalSource(saver, rows)
        case LangGraphSaver():
            return LangGraphSource(saver, rows, types)
        case _:
            assert_never(saver)


def _target(target: CheckpointerConfig | str) -> PetalSaver:
    config = CheckpointerConfig.from_url(target) if isinstance(target, str) else target
    options = {"engine": "petal", **(config.config or {})}
    saver = open_checkpointer(config, **options)
    if not isinstance(saver, PetalSaver):
        raise CheckpointerConfigurationError(
            f"{saver.where} is to be opened with LangGraph's tables; only Petal's can be converted to."
        )
    return saver


def _allowing(rows: Rows, types: Iterable[type]) -> Rows:
    return replace(rows, codec=Codec(rows.codec.allowed.adding(*types)))
