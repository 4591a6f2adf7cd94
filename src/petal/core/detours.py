"""Each way to a step with an approval leads to its question first, whoever says where to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.pregel import Pregel
from langgraph.pregel._write import ChannelWrite, ChannelWriteTupleEntry
from langgraph.types import Command, Send

from petal.core.config.agent import StepConfig

_TO_STEP = "branch:to:"

Questions = Mapping[str, str]
"""For each step with an approval the node that asks."""


def approval_name(step: str) -> str:
    """Name of the node that asks before a step."""
    return f"approve_{step}"


def skip_name(step: str) -> str:
    """Name of the node that asks a step's condition when the step was skipped."""
    return f"skip_{step}"


def questions_of(steps: Iterable[StepConfig]) -> Questions:
    """The nodes that ask before steps."""
    return {step.name: approval_name(step.name) for step in steps if step.approval}


def led(target: Any, questions: Questions) -> Any:
    """A step's name or a `Send`, but to the step's question if it has one."""
    if isinstance(target, Send):
        return Send(questions.get(target.node, target.node), target.arg, timeout=target.timeout)
    return questions.get(target, target)


def led_command(command: Command[Any], questions: Questions) -> Command[Any]:
    """A command from outside of the graph, which goes to questions instead of their steps."""
    if not command.goto:  # LangGraph takes None from there, too
        return command
    if isinstance(command.goto, str | Send):
        return replace(command, goto=led(command.goto, questions))
    return replace(command, goto=tuple(led(target, questions) for target in command.goto))


def lead(graph: Pregel[Any, Any, Any, Any], questions: Questions) -> None:
    """Let what nodes return, themselves or by a graph or a tool within them, go to questions instead of their steps.

    Only the questions themselves go on to the steps.
    """
    for name, node in graph.nodes.items():
        if questions and name not in questions.values():
            node.writers[:] = [_led_writer(writer, questions) for writer in node.writers]


def _led_writer(writer: Runnable[Any, Any], questions: Questions) -> Runnable[Any, Any]:
    if not isinstance(writer, ChannelWrite):
        return writer
    return ChannelWrite(
        [
            write._replace(mapper=_led_mapper(write.mapper, questions), static=_led_writes(write.static, questions))
            if isinstance(write, ChannelWriteTupleEntry)
            else write
            for write in writer.writes
        ],
        tags=writer.tags,
    )


def _led_mapper(mapper: Callable[[Any], Any], questions: Questions) -> Callable[[Any], Any]:
    return lambda value: _led_writes(mapper(value), questions)


def _led_writes(writes: Sequence[Any] | None, questions: Questions) -> Sequence[Any] | None:
    """Writes to channels, with those that begin a step changed."""
    if not writes:
        return writes
    return [(*_led_write(channel, value, questions), *label) for channel, value, *label in writes]


def _led_write(channel: str, value: Any, questions: Questions) -> tuple[str, Any]:
    if channel.startswith(_TO_STEP):
        return _TO_STEP + led(channel.removeprefix(_TO_STEP), questions), value
    return channel, led(value, questions) if isinstance(value, Send) else value
