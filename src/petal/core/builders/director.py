"""From a configuration to an agent: the one place where graphs are put together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import RetryPolicy, Send

from petal.checkpoints import open_checkpointer, types_in
from petal.core.agent import Agent
from petal.core.builders.approval import approval_node
from petal.core.config.agent import AgentConfig, ConditionConfig, RetryConfig, StepConfig
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.detours import Questions, approval_name, lead, led, questions_of, skip_name
from petal.core.shapes import Shape
from petal.core.steps.llm import tools_name
from petal.core.steps.registry import StepContext, StepNodes, StepRegistry
from petal.core.steps.tool import wants_tools
from petal.core.versions import VersionedSaver
from petal.errors import AgentConfigurationError, known_names
from petal.types.state import state_keys, values_of, with_messages

_KINDS_WITH_MESSAGES = frozenset({"llm", "react", "tool"})


class AgentBuilderDirector:
    """Builds agents; opens nothing.

    Args:
        config: What to build.
        registry: The kinds of step; default: the built-in ones.
    """

    def __init__(self, config: AgentConfig | None = None, registry: StepRegistry | None = None) -> None:
        self._config = config
        self._registry = registry or StepRegistry()

    def build(self) -> Agent:
        """The agent that the configuration describes.

        Raises:
            AgentConfigurationError: If there is no configuration, or it cannot work.
            CheckpointerConfigurationError: If the checkpointer lacks an option, or its package is missing.
        """
        if self._config is None:
            raise AgentConfigurationError("There is nothing to build; give AgentBuilderDirector an AgentConfig.")
        config = self._config.validated()
        needs_messages = any(step.type in _KINDS_WITH_MESSAGES for step in config.steps)
        context = StepContext(with_messages(config.state_type) if needs_messages else config.state_type, config.llm)
        state_keys(context.state_type)
        graph: StateGraph[Any, Any, Any, Any] = StateGraph(context.state_type)
        built = {step.name: self._registry.nodes(step, context) for step in config.steps}
        _check_names(config.steps, built)
        questions = questions_of(config.steps)
        entries = {step.name: led(step.name, questions) for step in config.steps} | {END: END}
        graph.add_edge(START, entries[config.steps[0].name])
        for step, following in zip(config.steps, [*config.steps[1:], None], strict=True):
            after = entries[step.next or (following.name if following else END)]
            _add_step(graph, step, built[step.name], after, entries, context)
        saver = self._saver(config)
        kept = None if saver is None else VersionedSaver(saver, Shape.of(config))
        return Agent(config, _compiled(graph, config.name, kept, questions), saver, context.models, context.toolboxes)

    def _saver(self, config: AgentConfig) -> BaseCheckpointSaver[Any] | None:
        if isinstance(config.checkpointer, CheckpointerConfig):
            return self._create_checkpointer(config.checkpointer) if config.checkpointer.enabled else None
        return config.checkpointer

    def _create_checkpointer(self, checkpointer_config: CheckpointerConfig) -> BaseCheckpointSaver[Any]:
        """A saver that opens at first use, and loads the types which the agent's state declares.

        Raises:
            CheckpointerConfigurationError: (a ValueError) If an option is missing or a package not installed.
        """
        return open_checkpointer(
            checkpointer_config, allow=[] if self._config is None else declared_types(self._config)
        )


def declared_types(config: AgentConfig) -> list[type]:
    """The types of the state's annotations, and those of structured answers."""
    outputs = [step.config.get("structured_output") for step in config.steps]
    return types_in(config.state_type, *(output for output in outputs if isinstance(output, type)))


def _check_names(steps: Sequence[StepConfig], built: Mapping[str, StepNodes]) -> None:
    """See that no step is called like a node that another one needs beside its own."""
    for step in steps:
        beside = [(approval_name(step.name), "asks before")] if step.approval else []
        beside += [(skip_name(step.name), "goes on behind")] if _skips_to_condition(step) else []
        beside += [(tools_name(step.name), "runs the tools of")] if built[step.name].tools is not None else []
        for name, act in beside:
            if name in built:
                raise AgentConfigurationError(
                    f"Step {name!r} has the name of the node that {act} step {step.name!r}; give it another name."
                )


def _compiled(
    graph: StateGraph[Any, Any, Any, Any], name: str, saver: BaseCheckpointSaver[Any] | None, questions: Questions
) -> CompiledStateGraph[Any, Any, Any, Any]:
    try:
        compiled = graph.compile(checkpointer=saver, name=name)
    except ValueError as error:
        raise AgentConfigurationError(f"Agent {name!r} cannot be built: {error}") from error
    lead(compiled, questions)
    return compiled


def _add_step(
    graph: StateGraph[Any, Any, Any, Any],
    step: StepConfig,
    nodes: StepNodes,
    after: str,
    entries: dict[str, str],
    context: StepContext,
) -> None:
    """The step's nodes, and its edges: through its tools, if it has some, to what comes after."""
    retry = None if step.retry is None else _retry_policy(step.retry)
    graph.add_node(step.name, nodes.node, retry_policy=retry, timeout=step.timeout)
    route, ends = _way_on(step, after, entries, context)
    if step.approval:
        behind = after if isinstance(route, str) else skip_name(step.name)
        reject = {"skip": behind, "fail": None}.get(step.approval.on_reject, entries.get(step.approval.on_reject))
        targets = (step.name,) if reject is None else (step.name, reject)
        graph.add_node(approval_name(step.name), approval_node(step, reject, context), destinations=targets)
    if _skips_to_condition(step):
        assert not isinstance(route, str), "a condition is a function"
        graph.add_node(skip_name(step.name), lambda state: None)
        graph.add_conditional_edges(skip_name(step.name), route, ends)
    if nodes.tools is None:
        if isinstance(route, str):
            graph.add_edge(step.name, route)
        else:
            graph.add_conditional_edges(step.name, route, ends)
        return
    tools = tools_name(step.name)
    graph.add_node(tools, nodes.tools, retry_policy=retry, timeout=step.timeout)
    graph.add_edge(tools, step.name)
    graph.add_conditional_edges(step.name, _tools_first(route, tools), {tools: tools, **ends})


def _skips_to_condition(step: StepConfig) -> bool:
    """Whether a no leads to a node that only asks the step's condition."""
    return step.condition is not None and step.approval is not None and step.approval.on_reject == "skip"


Route = Callable[..., Any]


def _way_on(
    step: StepConfig, after: str, entries: dict[str, str], context: StepContext
) -> tuple[str | Route, dict[Any, str]]:
    """Where the step goes on: a node's name, or a function that returns one, and all that it may return."""
    if step.condition is None:
        return after, {after: after}
    routes = {label: entries[target] for label, target in step.condition.routes.items()}
    return _route(step.name, step.condition, routes, entries, context), {target: target for target in routes.values()}


def _route(
    step: str, condition: ConditionConfig, routes: dict[Any, str], entries: dict[str, str], context: StepContext
) -> Route:
    def resolve(chosen: Any) -> Any:
        if isinstance(chosen, list | tuple):
            return [resolve(one) for one in chosen]
        if isinstance(chosen, Send):
            steps = [name for name in entries if name != END]
            if chosen.node not in steps:
                raise AgentConfigurationError(
                    f"The condition behind step {step!r} sends to {chosen.node!r}, which is no step. "
                    f"{known_names(chosen.node, steps)}"
                )
            return Send(entries[chosen.node], chosen.arg, timeout=chosen.timeout)
        try:
            return routes[chosen]
        except (KeyError, TypeError):
            raise AgentConfigurationError(
                f"The condition behind step {step!r} returned {chosen!r}, which none of its routes is for; it has "
                f"{', '.join(repr(label) for label in routes)}."
            ) from None

    if condition.key is not None:
        key = condition.key
        if key not in context.keys:
            raise AgentConfigurationError(
                f"The condition behind step {step!r} reads {key!r}, which the state does not have. "
                f"{known_names(key, context.keys)}"
            )
        return lambda state: resolve(values_of(state).get(key))
    function = condition.function
    if not callable(function):
        raise AgentConfigurationError(f"The condition behind step {step!r} is no function: {function!r}.")
    if inspect.iscoroutinefunction(function):

        async def aroute(state: Any) -> Any:
            return resolve(await function(state))

        return aroute
    return lambda state: resolve(function(state))


def _tools_first(route: str | Route, tools: str) -> Route:
    """The route, but through the tools while the answer asks for some."""
    if isinstance(route, str):
        return lambda state: tools if wants_tools(state) else route
    if inspect.iscoroutinefunction(route):

        async def aroute(state: Any) -> Any:
            return tools if wants_tools(state) else await route(state)

        return aroute
    return lambda state: tools if wants_tools(state) else route(state)


def _retry_policy(retry: RetryConfig) -> RetryPolicy:
    for kind in retry.on:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise AgentConfigurationError(f"A retry is for exception types, not {kind!r}.")
    return RetryPolicy(
        max_attempts=retry.attempts,
        initial_interval=retry.delay,
        backoff_factor=retry.backoff,
        jitter=False,
        retry_on=tuple(retry.on),
    )
