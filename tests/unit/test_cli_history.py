"""What `petal threads history` tells of an input, of whatever form it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.types import Send

from petal.checkpoints import MemorySaver
from petal.cli.history import LONGEST, _did
from petal.cli.snapshots import INPUT, Snapshot, history
from petal.core.factory import AgentFactory


def came_in(given: Any) -> Snapshot:
    """The checkpoint of an input."""
    checkpoint = {**empty_checkpoint(), "channel_values": {INPUT: given}}
    return Snapshot(CheckpointTuple({"configurable": {}}, checkpoint, {"source": "input"}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"messages": [HumanMessage("first"), HumanMessage("last")]}, "last"),
        ({"messages": [HumanMessage([{"type": "text", "text": "in a block"}])]}, "in a block"),
        ({"messages": HumanMessage("alone")}, "alone"),
        ({"messages": "a string"}, "a string"),
        ({"messages": [("user", "a pair")]}, "a pair"),
        ({"messages": [{"role": "user", "content": "a dict"}]}, "a dict"),
        ({"messages": [], "input": "its only text", "n": 1}, "its only text"),
        ({"one": "text", "another": "text"}, None),
        ({"messages": [object()]}, None),
        ("no dict", None),
        (None, None),
    ],
)
def test_what_was_said(given: Any, said: str | None) -> None:
    assert came_in(given).said == said
    expected = "took new input" if said is None else f"took new input: {said}"
    assert _did(came_in(given), None, str) == expected


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("two\n  lines", ": two lines"),
        ("x" * LONGEST, ": " + "x" * LONGEST),
        ("x" * 1000, ": " + "x" * (LONGEST - 1) + "…"),
        (" \n", ""),
    ],
)
def test_it_is_shown_in_one_line(said: str, shown: str) -> None:
    given: Mapping[str, Any] = {"messages": [HumanMessage(said)]}
    assert _did(came_in(given), None, str) == f"took new input{shown}"


def test_steps_that_were_sent_a_state_ran() -> None:
    """Each is named once, however often it ran in the superstep."""
    with MemorySaver() as saver:
        factory = (
            AgentFactory()
            .add(lambda state: {}, "plan")
            .with_condition(
                lambda state: [Send("dig", {"input": "bees"}), Send("dig", {"input": "ants"})], {"dig": "dig"}
            )
        )
        with factory.add(lambda state: {}, "dig").with_checkpointer(saver).build() as agent:
            agent.invoke("hello", thread_id="t")
            ids = [point.config["configurable"]["checkpoint_id"] for point in agent.thread("t").history()]
        told = [snapshot.did(parent) for snapshot, parent in history(saver, "t", ids)]
    assert told == ["ran dig", "ran plan", "began", "took new input"]
