"""Steps that are functions, Runnables or graphs of the user's own."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

from langchain_core.runnables import Runnable

from petal.core.config.agent import StepConfig
from petal.core.config.steps import CustomOptions
from petal.core.effects.task import Task
from petal.core.steps.registry import Node, StepContext, options_of
from petal.errors import AgentConfigurationError


def nodes(step: StepConfig, context: StepContext) -> Node:
    """The user's function as a node."""
    options = options_of(step, CustomOptions)
    node = options.function
    if isinstance(node, Runnable):
        if options.arguments:
            raise AgentConfigurationError(
                f"Step {step.name!r} is a Runnable, which takes no arguments; use a function."
            )
        return node
    if not callable(node):
        raise AgentConfigurationError(
            f"Step {step.name!r} needs a function of the state, a Runnable or a graph, not {type(node).__name__}."
        )
    if options.arguments:
        node = functools.wraps(node)(functools.partial(node, **options.arguments))
    return in_thread(node) if step.timeout is not None and not _is_async(node) else node


def in_thread(function: Any) -> Node:
    """The sync function as an async one, so that a time-out can go on without it.

    Its thread cannot be stopped: it runs to its end, and what it returns is dropped. But it begins no `petal.step` any
    more, since another try may be under way.
    """

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except asyncio.CancelledError:
            if (task := Task.current()) is not None:
                task.book.is_given_up = True
            raise

    return call


def _is_async(function: Any) -> bool:
    call = function if inspect.isroutine(function) else type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
