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
from petal.checkpoints.conversion.source import Source
from petal.checkpoints.conversion.threads import Copied, ThreadCopy
from petal.checkpoints.conversion.tuples import LangGraphSource
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.checkpoints.rows import Rows
from petal.checkpoints.saver import PetalSaver
from petal.checkpoints.savers import open_checkpointer
from petal.checkpoints.threads import ThreadInfo
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import CheckpointerConfigurationError, CheckpointerError, CheckpointerUnavailableError

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
    """Their checkpoints that were copied now."""
    already: int
    """Threads that were there already, and are the same."""
    resumed: int = 0
    """Their checkpoints that a call which was interrupted had copied before; they were compared."""

    def and_one(self, copied: Copied | None) -> Conversion:
        """The same with one thread more; with one that was there already if nothing was copied."""
        if copied is None:
            return replace(self, already=self.already + 1)
        new, there = self.checkpoints + copied.new, self.resumed + copied.there
        return replace(self, threads=self.threads + 1, checkpoints=new, resumed=there)


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

    What was written is read back and compared with the source before its transaction ends. A thread is one transaction:
    it is in the target whole, or not at all, whatever ends the process. One of more than 200 checkpoints comes in parts
    of so many, the oldest ones first. When it is called again, it goes on: threads that an earlier call brought there
    are passed over, and of one that it left in the middle, what is there is compared, and the rest comes. Let no agent
    use the source meanwhile, which is only read, nor in the target a thread that is not there whole.

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
            the target already and are not the same. All others are converted. Of such a thread nothing was
            written; or, of a long one, the parts before, from which the next call goes on.
        CheckpointerUnavailableError: If one of the databases cannot be used.
        CheckpointerConfigurationError: If the target is not Petal's, or an encryption key is wrong or missing.
    """
    allowed = list(allow)
    types = [*types_in(*allowed), *(cls for cls in allowed if isinstance(cls, type) and not is_typeddict(cls))]
    with ExitStack() as stack:
        if not isinstance(target, PetalSaver):
            target = _target(target)
            stack.push(target)
        rows = _allowing(target.rows, types)
        if not isinstance(source, PetalSaver | LangGraphSaver):
            source = open_checkpointer(source, inspect=True)
            stack.push(source)
        source.threads(1)  # before the target is made for it
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
                done = done.and_one(copied)
            self._seen += 1
            self._checkpoints += thread.checkpoints
            self._tell(thread.thread_id, 0)
        if failures:
            raise ThreadsNotConvertedError(failures, done)
        return done

    def _thread(self, thread: ThreadInfo) -> Copied | None:
        """What was copied of a thread; nothing if it is there already."""
        new = there = 0
        try:
            with self._source.copying(thread) as copying:
                tell = partial(self._ticked, thread.thread_id)
                copy = ThreadCopy(thread.thread_id, copying, self._rows.envelope, self._target.where, tell)
                for part in copy.parts():
                    if (copied := self._target.change_rows(thread.thread_id, part)) is None:
                        return None
                    new, there = new + copied.new, there + copied.there
        except Exception:
            raise
        except BaseException:
            self._stopped.set()  # the journal is in the middle of a thread for which nobody waits any more
            raise
        return Copied(new, there)

    def _ticked(self, thread_id: str, done: int) -> None:
        if self._stopped.is_set():
            raise _Stopped
        self._tell(thread_id, done)

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
    config = CheckpointerConfig.of(target)
    options = {"engine": "petal", **(config.config or {})}
    saver = open_checkpointer(config, **options)
    if not isinstance(saver, PetalSaver):
        raise CheckpointerConfigurationError(
            f"{saver.where} is to be opened with LangGraph's tables; only Petal's can be converted to."
        )
    return saver


def _allowing(rows: Rows, types: Iterable[type]) -> Rows:
    return replace(rows, codec=Codec(rows.codec.allowed.adding(*types)))
