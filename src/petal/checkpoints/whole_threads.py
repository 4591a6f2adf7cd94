"""What a saver does with whole threads: deletes, copies, forks, prunes, lists and checks them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import get_checkpoint_id

from petal.checkpoints import lineage
from petal.checkpoints.engine import Engine
from petal.checkpoints.leases import Conflicts
from petal.checkpoints.notes import Note, in_order, key_of
from petal.checkpoints.pruning import prune_all
from petal.checkpoints.recall import Recall
from petal.checkpoints.records import CheckpointQuery, LeaseRow, Reader, Transaction, WriteRow
from petal.checkpoints.retention import RetentionReport
from petal.checkpoints.rewinding import rewind_thread
from petal.checkpoints.rows import Namespace, Rows
from petal.checkpoints.threads import CheckpointInfo, ThreadInfo, ThreadQuery, thread_named
from petal.checkpoints.undoing import roll_back
from petal.checkpoints.verification import Damage, damages
from petal.core.config.retention import Retention

T = TypeVar("T")


class WholeThreads:
    """The acts on whole threads, of a saver that has an engine and knows rows."""

    _engine: Engine
    _rows: Rows
    _recall: Recall

    def delete_thread(self, thread_id: str) -> None:
        """Deletes all that a thread holds; an unknown one is no error."""
        ids = [thread_named(thread_id)]
        self._change(partial(lineage.delete_threads, thread_ids=ids), ids)

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`."""
        await self._engine.later(partial(self.delete_thread, thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Deletes the checkpoints of runs, with their writes, and the values that no other checkpoint needs.

        Raises:
            CheckpointerError: If a delta channel of a checkpoint that stays is rebuilt from one of them.
        """
        self._change(partial(lineage.delete_for_runs, rows=self._rows, run_ids=_ids(run_ids)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        await self._engine.later(partial(self.delete_for_runs, run_ids))

    async def aroll_back(self, thread_id: str, runs: Sequence[LeaseRow]) -> None:
        """Removes what runs of a thread saved, that it stands as before them.

        Args:
            thread_id: The thread.
            runs: Their claims, in the order in which they had the thread.

        Raises:
            CheckpointerError: If a delta channel of a checkpoint that stays is rebuilt from one of theirs.
        """
        await self._engine.later(
            partial(self._change, partial(roll_back, rows=self._rows, thread_id=thread_id, runs=runs))
        )

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all of a thread, so that the copy goes on where the source would.

        Raises:
            CheckpointNotFoundError: If the source has no checkpoints.
            CheckpointerError: If the target already has some.
        """
        source, target = thread_named(source_thread_id), thread_named(target_thread_id)
        self._change(partial(lineage.copy_thread, rows=self._rows, source=source, target=target))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        await self._engine.later(partial(self.copy_thread, source_thread_id, target_thread_id))

    def fork_thread(
        self, source_thread_id: str, checkpoint_id: str, target_thread_id: str, *, failed: bool = False
    ) -> None:
        """Makes a thread that has the past of one checkpoint, and that checkpoint as its newest.

        Open questions of the checkpoint come along if nothing follows it; else it goes on from there as if the later
        ones had never been.

        Args:
            source_thread_id: The thread to fork.
            checkpoint_id: A checkpoint of its root namespace.
            target_thread_id: The thread to make.
            failed: Whether a step raised there after its question had been answered. That is told from the saved
                writes and the graph only, so the status of the new thread is `waiting` unless it is said.

        Raises:
            CheckpointNotFoundError: If the source or the checkpoint is unknown.
            CheckpointerError: If the target already has checkpoints.
        """
        work = partial(
            lineage.fork_thread,
            rows=self._rows,
            source=thread_named(source_thread_id),
            checkpoint_id=checkpoint_id,
            target=thread_named(target_thread_id),
            failed=failed,
        )
        self._change(work)

    async def afork_thread(
        self, source_thread_id: str, checkpoint_id: str, target_thread_id: str, *, failed: bool = False
    ) -> None:
        """As `fork_thread`."""
        fork = partial(self.fork_thread, source_thread_id, checkpoint_id, target_thread_id, failed=failed)
        await self._engine.later(fork)

    def rewind_thread(self, config: RunnableConfig, checkpoint_id: str, only: Collection[str] | None = None) -> None:
        """Makes an earlier checkpoint the newest of its thread, by repeating it, with what its subgraphs had reached.

        What came after it stays where it is.

        Args:
            config: Names the thread; of a run that has it, also that run.
            checkpoint_id: A checkpoint of its root namespace.
            only: Repeat only what the subgraphs of these namespaces had reached there; the thread stays where it is.

        Raises:
            CheckpointNotFoundError: If there is no such checkpoint.
            CheckpointConflictError: If the run no longer has the thread.
        """
        work = partial(rewind_thread, rows=self._rows, config=config, checkpoint_id=checkpoint_id, only=only)
        with Conflicts(Namespace.of(config).thread_id):
            self._change(work)

    async def arewind_thread(
        self, config: RunnableConfig, checkpoint_id: str, only: Collection[str] | None = None
    ) -> None:
        """As `rewind_thread`."""
        await self._engine.later(partial(self.rewind_thread, config, checkpoint_id, only))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Deletes what threads no longer need to go on; unknown threads are no error.

        Args:
            thread_ids: The threads.
            strategy: `"keep_latest"` keeps the newest checkpoint of each namespace, and those that have a name, with
                their pending writes, and the ancestors from which delta channels are rebuilt; `"delete"` keeps nothing.

        Raises:
            ValueError: If the strategy is unknown.
        """
        ids = _ids(thread_ids)
        match strategy:
            case "keep_latest":
                self._change(partial(lineage.keep_latest, rows=self._rows, thread_ids=ids))
            case "delete":
                self._change(partial(lineage.delete_threads, thread_ids=ids), ids)
            case _:
                raise ValueError(f"No prune strategy {strategy!r}. Known: 'keep_latest', 'delete'.")

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        await self._engine.later(partial(self.prune, thread_ids, strategy=strategy))

    def retain(
        self, policy: Retention, thread_ids: Sequence[str] | None = None, *, dry_run: bool = False
    ) -> RetentionReport:
        """Deletes what a policy does not keep: checkpoints with their writes, and values that none that stays needs.

        Each thread is one transaction. A run that goes on meanwhile loses nothing: what it saves next is written
        whole if what it began with is gone.

        Args:
            policy: Which checkpoints go.
            thread_ids: Only these threads, of which unknown ones are no error; None for all.
            dry_run: Only tell what would go.

        Returns:
            What went, and which threads could not be read; of these nothing went.
        """
        ids = None if thread_ids is None else _ids(thread_ids)
        return prune_all(self._engine, self._rows, self._recall, policy, ids, dry_run=dry_run)

    async def aretain(
        self, policy: Retention, thread_ids: Sequence[str] | None = None, *, dry_run: bool = False
    ) -> RetentionReport:
        """As `retain`."""
        return await self._engine.later(partial(self.retain, policy, thread_ids, dry_run=dry_run))

    def threads(
        self,
        limit: int = 50,
        before: ThreadInfo | None = None,
        *,
        search: str | None = None,
        status: str | None = None,
    ) -> list[ThreadInfo]:
        """A page of the index of threads, the one that changed last first.

        Args:
            limit: At most so many.
            before: Only those after this one in the list: the last of the page before.
            search: Only those whose id holds this text.
            status: Only those with this status.
        """
        query = ThreadQuery(limit, before, search, status)
        return [] if limit <= 0 else self._engine.read(lambda reader: reader.threads(query))

    async def athreads(
        self,
        limit: int = 50,
        before: ThreadInfo | None = None,
        *,
        search: str | None = None,
        status: str | None = None,
    ) -> list[ThreadInfo]:
        """As `threads`."""
        return await self._engine.later(partial(self.threads, limit, before, search=search, status=status))

    def checkpoints(
        self, thread_id: str, limit: int = 50, before: CheckpointInfo | None = None, *, ns: str | None = ""
    ) -> list[CheckpointInfo]:
        """A page of a thread's history, newest first, for which no value is read.

        Args:
            thread_id: The thread.
            limit: At most so many.
            before: Only those after this one in the list: the last of the page before.
            ns: The namespace; None for all.
        """
        after = None if before is None else (before.checkpoint_id, before.thread_id, before.ns)
        query = CheckpointQuery(thread_id=str(thread_id), ns=ns, after=after, limit=limit)
        rows = [] if limit <= 0 else self._engine.read(lambda reader: reader.checkpoints(query))
        return [self._rows.info(row) for row in rows]

    async def acheckpoints(
        self, thread_id: str, limit: int = 50, before: CheckpointInfo | None = None, *, ns: str | None = ""
    ) -> list[CheckpointInfo]:
        """As `checkpoints`."""
        return await self._engine.later(partial(self.checkpoints, thread_id, limit, before, ns=ns))

    def notes(self, thread_id: str, channel: str) -> list[Note]:
        """What was noted on the checkpoints of a thread; see `petal.checkpoints.notes`."""
        return self._notes_in(self._engine.read(lambda reader: reader.notes(str(thread_id), channel)))

    async def anotes(self, thread_id: str, channel: str) -> list[Note]:
        """As `notes`."""
        return await self._engine.later(partial(self.notes, thread_id, channel))

    def notes_at(self, config: RunnableConfig, channel: str) -> list[Note] | None:
        """What was noted on one checkpoint; None if it is not there."""
        place, id = Namespace.of(config), str(get_checkpoint_id(config))

        def ask(reader: Reader) -> list[WriteRow] | None:
            if reader.checkpoint(place.thread_id, place.ns, id) is None:
                return None
            return [row for row in reader.writes(place.thread_id, place.ns, [id]) if row.channel == channel]

        rows = self._engine.read(ask)
        return None if rows is None else self._notes_in(rows)

    async def anotes_at(self, config: RunnableConfig, channel: str) -> list[Note] | None:
        """As `notes_at`."""
        return await self._engine.later(partial(self.notes_at, config, channel))

    def verify(self, thread_id: str | None = None) -> list[Damage]:
        """Reads every row of a thread, or of all threads, and tells which are damaged."""
        return self._engine.read(lambda reader: list(damages(reader, self._rows, thread_id)))

    async def averify(self, thread_id: str | None = None) -> list[Damage]:
        """As `verify`."""
        return await self._engine.later(partial(self.verify, thread_id))

    def _notes_in(self, rows: Sequence[WriteRow]) -> list[Note]:
        return in_order(
            Note(row.thread_id, row.ns, row.checkpoint_id, key, self._rows.write(row)[2])
            for row in rows
            if (key := key_of(row.task_id)) is not None
        )

    def _change(self, work: Callable[[Transaction], T], thread_ids: Sequence[str] = ()) -> T:
        done = self._engine.change(work)
        for thread_id in thread_ids:
            self._recall.forget(thread_id)
        return done


def _ids(ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str):
        raise TypeError(f"A list of ids is needed, not the text {ids!r}")
    return [str(id) for id in ids]
