"""What a saved checkpoint tells by itself, without the agent that made it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langgraph.checkpoint.base import CheckpointTuple
    from langgraph.types import Interrupt

TO_STEP = "branch:to:"
"""Channels that start a step are called so, and its name."""
SENT = "__pregel_tasks"
"""The channel of steps that were started with a state of their own."""
INPUT = "__start__"
_INTERNAL = (TO_STEP, "join:", "__")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A checkpoint as its database holds it."""

    kept: CheckpointTuple

    @property
    def id(self) -> str:
        """The checkpoint's id."""
        return self.kept.checkpoint["id"]

    @property
    def time(self) -> datetime:
        """When it was made."""
        return datetime.fromisoformat(self.kept.checkpoint["ts"])

    @property
    def step(self) -> int | None:
        """Its number in the thread; -1 is the first input."""
        return self.kept.metadata.get("step")

    @property
    def source(self) -> str:
        """What made it: `input`, `loop`, `update` or `fork`."""
        return self.kept.metadata.get("source", "")

    @property
    def values(self) -> dict[str, Any]:
        """The state, without what LangGraph keeps beside it."""
        values = self.kept.checkpoint["channel_values"]
        return {name: value for name, value in values.items() if not name.startswith(_INTERNAL)}

    @property
    def next(self) -> list[str]:
        """The steps that would run next; several run at once."""
        values = self.kept.checkpoint["channel_values"]
        started = [name.removeprefix(TO_STEP) for name in values if name.startswith(TO_STEP)]
        sent = [task.node for task in values.get(SENT) or ()]
        return [*([INPUT] if INPUT in values else []), *started, *sent]

    @property
    def interrupts(self) -> list[Interrupt]:
        """The open questions: those of tasks that have not gone on since."""
        return [asked for task in self._tasks().values() for asked in task.questions if not task.done]

    @property
    def errors(self) -> list[str]:
        """What made tasks of the next steps fail; a refused answer is no failure, its question is open again."""
        from petal.core.config.checkpointer import redacted

        return [
            redacted(str(error))
            for task in self._tasks().values()
            for error in task.errors
            if not (task.done or task.questions)
        ]

    @property
    def status(self) -> str:
        """`waiting` for an answer, `unfinished`, or `done`."""
        return "waiting" if self.interrupts else "unfinished" if self.next else "done"

    def did(self, parent: Snapshot | None) -> str:
        """What happened between the parent and this: the steps that ran, or the input that came in."""
        seen = self.kept.checkpoint["versions_seen"]
        before = parent.kept.checkpoint["versions_seen"] if parent else {}
        ran = [
            name for name, versions in seen.items() if not name.startswith("__") and versions != before.get(name, {})
        ]
        match self.source:
            case "input":
                return "took new input"
            case "update":
                return "was edited" + (f" as {', '.join(ran)}" if ran else "")
            case "fork":
                return "was forked"
            case _:
                return f"ran {', '.join(ran)}" if ran else "began"

    def _tasks(self) -> dict[str, _Task]:
        tasks: dict[str, _Task] = {}
        for task_id, channel, value in self.kept.pending_writes or ():
            if task_id.replace("0", "").replace("-", "") == "":
                continue  # not a task: input for all of them
            task = tasks.setdefault(task_id, _Task([], []))
            match channel:
                case "__interrupt__":
                    task.questions.extend(value if isinstance(value, list | tuple) else [value])
                case "__error__":
                    task.errors.append(value)
                case "__resume__" | "__error_source_node__":
                    pass
                case _:
                    task.done = True
        return tasks


@dataclass(slots=True)
class _Task:
    questions: list[Interrupt]
    errors: list[Any]
    done: bool = False


def history(saver: Any, thread_id: str, limit: int | None) -> Iterator[tuple[Snapshot, Snapshot | None]]:
    """The checkpoints of a thread, newest first, each with its parent."""
    config = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    snapshots = [Snapshot(kept) for kept in saver.list(config, limit=None if limit is None else limit + 1)]
    yield from paired(saver, snapshots if limit is None else snapshots[:limit], snapshots)


def paired(
    saver: Any, shown: Iterable[Snapshot], known: Iterable[Snapshot]
) -> Iterator[tuple[Snapshot, Snapshot | None]]:
    """Each snapshot with its parent, read from the database where it is not among the known ones."""
    by_id = {snapshot.id: snapshot for snapshot in known}
    for snapshot in shown:
        config = snapshot.kept.parent_config
        if config is None:
            yield snapshot, None
            continue
        parent = by_id.get(config["configurable"]["checkpoint_id"])
        if parent is None and (kept := saver.get_tuple(config)) is not None:
            parent = Snapshot(kept)
        yield snapshot, parent
