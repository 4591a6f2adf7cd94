"""Runs and updates at an earlier checkpoint: graphs within that keep a state of their own begin there too.

LangGraph gives such a graph its newest state, whichever line of the thread that is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base.id import uuid6
from langgraph.pregel import Pregel
from langgraph.types import Command

from petal.checkpoints.lines import aoutlines
from petal.checkpoints.retention import Point, states_at
from petal.checkpoints.rewinding import arewind, before_run
from petal.core.continuity import next_steps
from petal.core.versions import STATES


def keeps_states(graph: Pregel[Any, Any, Any, Any]) -> bool:
    """Whether a graph within keeps a state of its own, as far as LangGraph finds the graphs within steps."""
    return any(inner.checkpointer is True for inner in _within(graph, {id(graph)}))


def _within(graph: Pregel[Any, Any, Any, Any], seen: set[int]) -> Iterator[Pregel[Any, Any, Any, Any]]:
    for node in graph.nodes.values():
        for inner in node.subgraphs:
            if isinstance(inner, Pregel) and id(inner) not in seen:
                seen.add(id(inner))
                yield inner
                yield from _within(inner, seen)


async def begun_at(saver: BaseCheckpointSaver[Any], config: RunnableConfig, input: Any = None) -> RunnableConfig:
    """The config of a run or an update, with which graphs within begin where they were at the checkpoint that it names.

    That checkpoint is repeated as the newest one, as a rewind does it, and is gone on from. An answer goes to the
    checkpoint itself, since its question is known by it.

    Args:
        saver: Keeps the thread.
        config: Of what has the thread now; it names the checkpoint.
        input: What the graph is given.
    """
    place = config["configurable"]
    checkpoint_id = place["checkpoint_id"]
    outlines = await aoutlines(saver, str(place["thread_id"]), ns=None)
    points = [Point.of(info.ns, info.checkpoint_id, info.parent_id, info.metadata) for info in outlines]
    roots = {point.id for point in points if not point.ns}
    kept = {point.ns for point in points if point.ns and ":" not in point.ns}
    if not kept or checkpoint_id not in roots or checkpoint_id == max(roots):
        return config
    repeating: RunnableConfig = {**config, "metadata": {"run_id": before_run(config["metadata"]["run_id"])}}
    if isinstance(input, Command) and input.resume is not None:
        asking = await _asking(saver, config, points, checkpoint_id)
        await arewind(saver, repeating, checkpoint_id, kept - asking.keys())
        return {**config, "configurable": {**place, STATES: {"at": asking, "since": str(uuid6())}}}
    await arewind(saver, repeating, checkpoint_id)
    return {**config, "configurable": {key: value for key, value in place.items() if key != "checkpoint_id"}}


async def _asking(
    saver: BaseCheckpointSaver[Any], config: RunnableConfig, points: Sequence[Point], checkpoint_id: str
) -> dict[str, str]:
    """Where the graphs stand whose calls at a checkpoint have not ended, by namespace."""
    called = {point.ns for point in points if point.root == checkpoint_id}
    found = {}
    for ns, id in states_at(points, checkpoint_id, as_far=True).items():
        if ns in called:
            place = {"thread_id": config["configurable"]["thread_id"], "checkpoint_ns": ns, "checkpoint_id": id}
            state = await saver.aget_tuple({"configurable": place})
            assert state is not None, "it was just listed, and this run has the thread"
            if any(True for _ in next_steps(state)):
                found[ns] = id
    return found
