"""Whether threads can go on with the agent as it is today: its steps, its version, its types."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.constants import START
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot
from pydantic import BaseModel, ValidationError

from petal.core.shapes import state_of
from petal.core.versions import VersionedSaver
from petal.errors import CheckpointCorruptionError, PetalError, StepGoneError

_TO_STEP, _JOIN, _SENT = "branch:to:", "join:", "__pregel_tasks"


@dataclass(frozen=True, slots=True)
class ThreadCheck:
    """Whether one thread can go on.

    Attributes:
        thread_id: The thread.
        checkpoint_id: Its newest checkpoint.
        error: Why it cannot, or its state cannot be read; None if it can.
    """

    thread_id: str
    checkpoint_id: str
    error: PetalError | None = None


async def check_going_on(graph: Pregel[Any, Any, Any, Any], config: RunnableConfig) -> None:
    """See that a run may go on from where a thread stopped. Nothing is changed.

    Args:
        graph: The graph, with its saver.
        config: Names the thread, and the checkpoint if not the newest.

    Raises:
        StepGoneError: If a next step is none of the graph's, or within a step none of that step's graph.
        StateVersionError: If the state cannot be brought to the agent's version.
        CheckpointCorruptionError: If it cannot be read.
    """
    saver = graph.checkpointer
    assert isinstance(saver, BaseCheckpointSaver), "only a thread goes on"
    kept = await saver.aget_tuple(config)
    if kept is None:
        return
    if isinstance(saver, VersionedSaver):
        await saver.acheck_begun(kept.config)
    _check_steps(kept, graph)
    if any(True for _ in next_steps(kept)):
        await _check_within(graph, saver, await graph.aget_state(kept.config, subgraphs=True))


async def check_thread(graph: Pregel[Any, Any, Any, Any], thread_id: str, checkpoint_id: str) -> ThreadCheck:
    """What `check_going_on` says of a thread, and whether its state has the form that the steps are given."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
    saver = graph.checkpointer
    assert isinstance(saver, BaseCheckpointSaver), "only a thread goes on"
    try:
        await check_going_on(graph, config)
        kept = await saver.aget_tuple(config)
        if kept is not None:
            _check_form(kept, getattr(graph, "builder", None))
    except PetalError as error:
        return ThreadCheck(thread_id, checkpoint_id, error)
    return ThreadCheck(thread_id, checkpoint_id)


def _check_steps(kept: CheckpointTuple, graph: Pregel[Any, Any, Any, Any], within: str = "") -> None:
    known = [name for name in graph.nodes if name != START]
    for step in next_steps(kept):
        if step not in known:
            raise StepGoneError(str(kept.config["configurable"]["thread_id"]), step, known, within)


async def _check_within(
    graph: Pregel[Any, Any, Any, Any], saver: BaseCheckpointSaver[Any], snapshot: StateSnapshot, outer: str = ""
) -> None:
    """The same for the graphs that the next steps run."""
    graphs = {name: inner async for name, inner in graph.aget_subgraphs()}
    for task in snapshot.tasks:
        inner = graphs.get(task.name)
        if not isinstance(task.state, StateSnapshot) or not isinstance(inner, Pregel):
            continue
        step = f"{outer}.{task.name}" if outer else task.name
        kept = await saver.aget_tuple(task.state.config)
        if kept is not None:
            _check_steps(kept, inner, step)
        await _check_within(inner, saver, task.state, step)


def next_steps(kept: CheckpointTuple) -> Iterator[str]:
    """The steps that would run next."""
    values = kept.checkpoint["channel_values"]
    for name, value in values.items():
        if name.startswith(_TO_STEP):
            yield name.removeprefix(_TO_STEP)
        elif name.startswith(_JOIN) and value:
            yield name.rpartition(":")[2]
    for sent in values.get(_SENT) or ():
        yield sent.node


def _check_form(kept: CheckpointTuple, builder: Any) -> None:
    """See that a state of pydantic's or a dataclass can be made of the values, as it is for the next step.

    What is only missing may come with the next input, unless a step is next.
    """
    form = getattr(builder, "state_schema", None)
    values = state_of(kept)
    if not isinstance(form, type) or not values:
        return
    problems: list[str] = []
    if issubclass(form, BaseModel):
        try:
            form.model_validate(values)
        except ValidationError as error:
            goes_on = any(True for _ in next_steps(kept))
            problems = [
                f"{'.'.join(str(part) for part in mistake['loc'])}: {mistake['msg']}"
                for mistake in error.errors(include_url=False, include_input=False)
                if goes_on or mistake["type"] != "missing"
            ]
    elif dataclasses.is_dataclass(form) and any(True for _ in next_steps(kept)):
        problems = [
            f"{field.name}: it is missing"
            for field in dataclasses.fields(form)
            if field.init
            and field.name not in values
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
    if problems:
        place = kept.config["configurable"]
        raise CheckpointCorruptionError(
            f"The state in checkpoint {place['checkpoint_id']!r} of thread {place['thread_id']!r}",
            f"it is no {form.__name__} of today ({'; '.join(problems)}); a migration can make it one",
        )


async def heads(saver: BaseCheckpointSaver[Any]) -> AsyncIterator[tuple[str, str]]:
    """The threads of a saver with their newest checkpoints, read page by page."""
    if hasattr(saver, "athreads"):
        before = None
        while page := await saver.athreads(_PAGE, before):
            for info in page:
                yield info.thread_id, info.checkpoint_id
            before = page[-1]
        return
    seen = set[str]()
    async for kept in saver.alist(None):
        place = kept.config["configurable"]
        if not place.get("checkpoint_ns") and place["thread_id"] not in seen:
            seen.add(place["thread_id"])
            yield place["thread_id"], place["checkpoint_id"]


_PAGE = 500
