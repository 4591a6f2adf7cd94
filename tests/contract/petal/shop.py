"""What the tests of Petal's saver save: a shop that talks, lists, and checkpoints put together by hand."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages

from petal.checkpoints.saver import PetalSaver


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Order:
    item: str
    colours: list[Colour]


class Shop(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    order: Order
    notes: dict[str, Any]


class Lines(TypedDict, total=False):
    lines: Annotated[list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w])]


def on(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def chat(saver: Any, answer: Any = None) -> Any:
    def reply(state: Shop) -> Any:
        return answer(state) if answer else {"messages": [AIMessage("answer " * 20)]}

    graph = StateGraph(Shop)
    graph.add_node("reply", reply)
    graph.set_entry_point("reply")
    return graph.compile(checkpointer=saver)


def said(saver: Any, thread_id: str = "t") -> list[str]:
    found = saver.get_tuple(on(thread_id))
    return [message.text for message in found.checkpoint["channel_values"].get("messages", [])]


def put(
    saver: PetalSaver, id: str, parent: str | None, value: Any, version: str, *, new: bool = True, run_id: str = "r"
) -> None:
    """Save a checkpoint with one channel, whose parent may be any."""
    checkpoint = empty_checkpoint() | {"id": id, "channel_values": {"x": value}, "channel_versions": {"x": version}}
    config = on("t", checkpoint_ns="", **({} if parent is None else {"checkpoint_id": parent}))
    metadata: CheckpointMetadata = {"source": "loop", "step": 0, "run_id": run_id}
    saver.put(config, checkpoint, metadata, {"x": version} if new else {})


def value_of(saver: PetalSaver, id: str) -> Any:
    found = saver.get_tuple(on("t", checkpoint_ns="", checkpoint_id=id))
    assert found is not None
    return found.checkpoint["channel_values"]["x"]


BIG = "a" * 1000
