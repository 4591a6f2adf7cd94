"""The steps of an agent, as a YAML file says them."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from petal.core.config.agent import ConditionConfig, LLMConfig, RetryConfig, StepConfig
from petal.core.yaml.document import Place
from petal.core.yaml.format import (
    Condition,
    CustomStepOptions,
    OtherStep,
    ReactStepOptions,
    Retry,
    Step,
)
from petal.core.yaml.handlers.tools import chosen
from petal.core.yaml.mistakes import unknown
from petal.core.yaml.paths import local_model
from petal.core.yaml.resolution import Resolution, runs


def step_of(
    step: Step, place: Place, tools: Mapping[str, Any], kinds: Sequence[str], resolution: Resolution
) -> StepConfig | None:
    """A step's configuration, the same that code would give it; None if a mistake was noted.

    Args:
        step: The step as it stands in the file.
        place: Where it stands.
        tools: The file's tools by name.
        kinds: The kinds of step that are registered.
        resolution: Finds what references name.
    """
    if isinstance(step, OtherStep):
        config = step.config
        if step.type not in kinds:
            problem = unknown("kind of step", step.type, kinds, "; others are registered on a StepRegistry")
            resolution.mistakes.add((*place, "type"), problem)
    else:
        config = options_of(step.config, (*place, "config"), tools, resolution)
    condition = _condition(step.condition, (*place, "condition"), resolution) if step.condition else None
    retry = _retry(step.retry, (*place, "retry"), resolution) if step.retry else None
    if resolution.mistakes:
        return None
    return StepConfig(
        type=step.type,
        name=step.name,
        config=config,
        condition=condition,
        next=step.next,
        retry=retry,
        timeout=step.timeout,
        approval=step.approval,
    )


def options_of(options: Any, place: Place, tools: Mapping[str, Any], resolution: Resolution) -> dict[str, Any]:
    """What is set of a built-in kind's options, with objects for their names."""
    config = {name: getattr(options, name) for name in type(options).model_fields if name in options.model_fields_set}
    if isinstance(options, ReactStepOptions):
        config["max_iterations"] = options.max_iterations
    if isinstance(config.get("llm"), LLMConfig):
        config["llm"] = local_model(config["llm"], resolution.folder)
    if "tools" in config:
        config["tools"] = chosen(options.tools, tools, (*place, "tools"), resolution)
    if config.get("structured_output") is not None:
        at = (*place, "structured_output")
        config["structured_output"] = resolution.find(at, options.structured_output, "a pydantic model", _is_model)
    if isinstance(options, CustomStepOptions):
        config["function"] = resolution.find((*place, "function"), options.function, "a function or a graph", runs)
    return {name: value for name, value in config.items() if value is not None and value != {}}


def _condition(condition: Condition, place: Place, resolution: Resolution) -> ConditionConfig | None:
    if condition.function is None:
        return ConditionConfig(key=condition.key, routes=condition.routes)
    found = resolution.find((*place, "function"), condition.function, "a function", runs)
    return found and ConditionConfig(function=found, routes=condition.routes)


def _retry(retry: Retry, place: Place, resolution: Resolution) -> RetryConfig:
    on = tuple(_exception(name, (*place, "on", index), resolution) for index, name in enumerate(retry.on))
    return RetryConfig(attempts=retry.attempts, delay=retry.delay, backoff=retry.backoff, on=on)


def _exception(name: str, place: Place, resolution: Resolution) -> type[Exception] | None:
    if ":" in name:
        found: type[Exception] | None = resolution.find(place, name, "an exception type", _is_exception)
        return found
    known = {key: value for key, value in vars(builtins).items() if _is_exception(value)}
    if name not in known:
        problem = unknown("built-in exception", name, known)
        resolution.mistakes.add(place, problem.partition(" Known:")[0] + " Others are written as package.module:Name.")
    return known.get(name)


def _is_model(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseModel)


def _is_exception(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, Exception)
