"""What a saved checkpoint tells by itself, without the agent that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from petal.cli.statuses import stands_now

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
    interrupts: Sequence[Interrupt] = ()
    """The open questions, where they were looked for."""
    stands: str | None = None
    """How its thread stands, where it is the newest and that was looked for."""

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
        return [*([INPUT] if INPUT in values else []), *started, *self._sent]

    @property
    def _sent(self) -> list[str]:
        """The steps that would be started with a state of their own, each as often as it would."""
        return [task.node for task in self.kept.checkpoint["channel_values"].get(SENT) or ()]

    @property
    def errors(self) -> list[str]:
        """What made tasks of the next steps fail; a refused answer is no failure, its question is open again."""
        from petal.core.config.checkpointer import redacted
        from petal.core.questions import failures

        return [redacted(str(error)) for error in failures(self.kept, self.interrupts)]

    @property
    def status(self) -> str:
        """How its thread stands, if that is known; else `waiting` for an answer, `unfinished`, or `done`."""
        return self.stands or ("waiting" if self.interrupts else "unfinished" if self.next else "done")

    @property
    def said(self) -> str | None:
        """The text of the input that came in with it: of its last message, or of its only text."""
        from langchain_core.messages import BaseMessage

        given = self.kept.checkpoint["channel_values"].get(INPUT)
        if not isinstance(given, Mapping):
            return None
        messages = given.get("messages")
        match messages[-1] if isinstance(messages, list) and messages else messages:
            case BaseMessage() as message:
                return message.text
            case str(text) | (_, str(text)) | {"content": str(text)}:
                return text
        texts = [value for value in given.values() if isinstance(value, str)]
        return texts[0] if len(texts) == 1 else None

    @property
    def repeats(self) -> str | None:
        """The checkpoint to which a rewind went back with it."""
        from petal.checkpoints.threads import TWIN_OF

        metadata: Mapping[str, Any] = self.kept.metadata
        repeated: str | None = metadata.get(TWIN_OF)
        return repeated

    def did(self, parent: Snapshot | None) -> str:
        """What happened between the parent and this: the steps that ran, or the input that came in."""
        if self.repeats is not None:
            return f"went back to {self.repeats}"
        seen = self.kept.checkpoint["versions_seen"]
        before = parent.kept.checkpoint["versions_seen"] if parent else {}
        ran = [
            name for name, versions in seen.items() if not name.startswith("__") and versions != before.get(name, {})
        ]
        if parent is not None and self.source == "loop":
            # What was sent to them is no channel that they could have seen.
            ran = list(dict.fromkeys([*ran, *parent._sent]))
        match self.source:
            case "input":
                return "took new input"
            case "update":
                return "was edited" + (f" as {', '.join(ran)}" if ran else "")
            case "fork":
                return "was forked"
            case _:
                return f"ran {', '.join(ran)}" if ran else "began"


def looked_at(saver: Any, thread_id: str, checkpoint_id: str | None = None) -> Snapshot:
    """A thread's newest checkpoint and how the thread stands, or another that is there; with its open questions."""
    from petal.core.questions import open_questions

    named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    kept = saver.get_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **named}})
    assert kept is not None, "its id was just found"
    interrupts = asyncio.run(open_questions(saver, thread_id, kept.checkpoint["id"]))
    return Snapshot(kept, interrupts, stands_now(saver, thread_id) if checkpoint_id is None else None)


def history(saver: Any, thread_id: str, ids: Iterable[str]) -> Iterator[tuple[Snapshot, Snapshot | None]]:
    """The checkpoints of these ids in their order, each with its parent; without those that are gone meanwhile."""
    place = {"thread_id": thread_id, "checkpoint_ns": ""}
    kept = [saver.get_tuple({"configurable": {**place, "checkpoint_id": id}}) for id in ids]
    snapshots = {one.checkpoint["id"]: Snapshot(one) for one in kept if one is not None}
    for snapshot in snapshots.values():
        config = snapshot.kept.parent_config
        parent = None if config is None else snapshots.get(config["configurable"]["checkpoint_id"])
        if parent is None and config is not None and (before := saver.get_tuple(config)) is not None:
            parent = Snapshot(before)
        yield snapshot, parent
