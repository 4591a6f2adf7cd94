"""What the records of effects tell of tool calls that never got a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from petal.checkpoints.notes import EFFECT, Note, anotes, notes
from petal.core.effects.records import DONE, FAILED, Effect, digest, effects, plain
from petal.core.steps.history import DanglingCall, Key, dangling
from petal.tools.ledger import message_of


@dataclass(frozen=True, slots=True)
class Traces:
    """What became of dangling calls before the step that finds them.

    Attributes:
        begun: The ids of calls that began.
        ended: What those gave that ended, in the parts in which a tool's node returns it.
    """

    begun: frozenset[str] = frozenset()
    ended: Mapping[Key, Sequence[Any]] = field(default_factory=dict)


def traces(calls: Sequence[DanglingCall], messages: Sequence[BaseMessage], config: RunnableConfig) -> Traces:
    """What is on record of the dangling calls of a conversation.

    Args:
        calls: The calls.
        messages: The conversation.
        config: That of the step that asks.
    """
    saver = config.get("configurable", {}).get("__pregel_checkpointer")
    if not calls or not isinstance(saver, BaseCheckpointSaver):
        return Traces()
    search = _Search.of(_named(calls, messages), notes(saver, config["configurable"]["thread_id"], EFFECT), config)
    return search.found([saver.get_tuple(place) for place in search.places])


async def atraces(calls: Sequence[DanglingCall], messages: Sequence[BaseMessage], config: RunnableConfig) -> Traces:
    """As `traces`."""
    saver = config.get("configurable", {}).get("__pregel_checkpointer")
    if not calls or not isinstance(saver, BaseCheckpointSaver):
        return Traces()
    found = await anotes(saver, config["configurable"]["thread_id"], EFFECT)
    search = _Search.of(_named(calls, messages), found, config)
    return search.found([await saver.aget_tuple(place) for place in search.places])


_Name = tuple[str | int, str | None]
"""A call by the id of its message, or the place of one that has none, and its own id."""


@dataclass(frozen=True, slots=True)
class _Search:
    """The effects that may be those of dangling calls.

    Some models use an id again in a later turn. So an effect is a call's only if the same message's call dangled at the
    checkpoint from which the effect came about.
    """

    begun: frozenset[str]
    pairs: Sequence[tuple[_Name, DanglingCall, Effect]]
    """Calls with effects that are like them, the newest effect last."""

    @classmethod
    def of(cls, calls: Mapping[_Name, DanglingCall], found: Sequence[Note], config: RunnableConfig) -> _Search:
        # What this step began itself, it goes on with when it is resumed.
        now = config["configurable"].get("checkpoint_map", {}).values()
        past = [one for one in effects(found) if one.begun["tool_call_id"] and one.checkpoint_id not in now]
        pairs = [(name, call, one) for one in past for name, call in calls.items() if _is_like(one, call)]
        return cls(frozenset(one.begun["tool_call_id"] for one in past), pairs)

    @property
    def places(self) -> list[RunnableConfig]:
        """The checkpoints of the effects."""
        return [
            {"configurable": {"thread_id": of.thread_id, "checkpoint_ns": of.ns, "checkpoint_id": of.checkpoint_id}}
            for _, _, of in self.pairs
        ]

    def found(self, checkpoints: Sequence[CheckpointTuple | None]) -> Traces:
        """What is known of the calls, once those checkpoints are read."""
        newest: dict[Key, tuple[DanglingCall, Effect]] = {}
        for (name, call, effect), kept in zip(self.pairs, checkpoints, strict=True):
            held = [] if kept is None else kept.checkpoint["channel_values"].get("messages") or []
            if name not in _named(dangling(held), held):
                continue
            if call.key not in newest or newest[call.key][1].status != DONE:
                newest[call.key] = call, effect
        results = {key: _parts(*pair) for key, pair in newest.items()}
        return Traces(self.begun, {key: parts for key, parts in results.items() if parts})


def _named(calls: Sequence[DanglingCall], messages: Sequence[BaseMessage]) -> dict[_Name, DanglingCall]:
    return {(messages[call.place].id or call.place, call.call["id"]): call for call in calls}


def _is_like(effect: Effect, call: DanglingCall) -> bool:
    return (effect.begun["tool_call_id"], effect.identity.name, effect.begun["told"]) == (
        call.call["id"],
        call.call["name"],
        digest(plain(call.call["args"])),
    )


def _parts(call: DanglingCall, effect: Effect) -> list[Any]:
    """What a call gave; nothing if it is not known to have ended."""
    name, ended = call.call["name"], effect.ended or {}
    if effect.status == FAILED:
        return [{"messages": [call.result(f"The call of {name!r} failed: {ended['error']}")]}]
    if effect.status != DONE:
        return []
    result = ended["result"]
    if message_of(result, call.call["id"]) is None:
        # A command that leads out of the graph needs no message; nothing tells whether it was followed.
        return [{"messages": [call.result(f"The call of {name!r} ended and gave no result.", failed=False)]}]
    parts = result if isinstance(result, list) else [result]
    return [{"messages": [part]} if isinstance(part, ToolMessage) else part for part in parts]
