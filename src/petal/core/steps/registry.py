"""Which kinds of step there are, and how each becomes nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import BaseModel, ValidationError

from petal.core.config.agent import LLMConfig, StepConfig
from petal.core.models.source import ModelSource
from petal.errors import AgentConfigurationError, known_names
from petal.tools.toolbox import Toolbox
from petal.types.state import state_keys

Node = Callable[..., Any] | Runnable[Any, Any]
"""What LangGraph takes as a node: a function of the state, sync or async, a Runnable or a graph."""

OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(slots=True)
class StepContext:
    """What a strategy may know of the agent around its step."""

    state_type: type
    """The graph's state, with `messages` where a step needs them."""
    llm: LLMConfig | BaseChatModel | None = None
    """The agent's default model."""
    models: list[ModelSource] = field(default_factory=list)
    """Each model that a step asked for."""
    toolboxes: list[Toolbox] = field(default_factory=list)
    """The tools of each step that has some."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The state's keys."""
        return state_keys(self.state_type)

    def model(self, spec: Any, step: str) -> ModelSource:
        """The model that `spec` names, or the agent's default.

        Raises:
            AgentConfigurationError: If there is neither.
        """
        spec = self.llm if spec is None else spec
        if spec is None:
            raise AgentConfigurationError(
                f"Step {step!r} names no model, and the agent has none; pass llm='openai:gpt-4o', or 'demo:' to try "
                "without a key."
            )
        if not isinstance(spec, LLMConfig | BaseChatModel):
            try:
                spec = LLMConfig.model_validate(spec)
            except ValidationError as error:
                raise AgentConfigurationError(
                    f"The model of step {step!r} cannot be used: {explained(error)}"
                ) from None
        source = ModelSource(spec)
        self.models.append(source)
        return source

    def toolbox(self, tools: Sequence[Any], step: str) -> Toolbox:
        """A step's tools, those of MCP servers not listed yet.

        Raises:
            AgentConfigurationError: If one of them is no tool.
        """
        box = Toolbox(tools, step)
        self.toolboxes.append(box)
        return box

    def require_key(self, key: str, step: str, what: str) -> None:
        """Raise AgentConfigurationError unless the state has `key`."""
        if key not in self.keys:
            raise AgentConfigurationError(
                f"Step {step!r} writes {what} to {key!r}, which the state does not have. {known_names(key, self.keys)}"
            )


@dataclass(frozen=True, slots=True)
class StepNodes:
    """A step as nodes of a graph."""

    node: Node
    tools: Node | None = None
    """Runs the tool calls of the node's answer, then goes back to the node, until it asks for none."""


class Strategy(Protocol):
    """Makes a step's nodes from its configuration; opens nothing."""

    def __call__(self, step: StepConfig, context: StepContext, /) -> StepNodes | Node:
        """The nodes, or just one node.

        Raises:
            AgentConfigurationError: If the configuration cannot work.
        """
        ...


class StepRegistry:
    """The kinds of step that an agent may have.

    ```python
    registry = StepRegistry()
    registry.register("shout", lambda step, context: lambda state: {"text": state["text"].upper()})
    agent = AgentFactory(State, registry=registry).add(StepConfig(type="shout", name="loud")).build()
    ```
    """

    def __init__(self, strategies: Mapping[str, Strategy] | None = None) -> None:
        self._strategies: dict[str, Strategy] = {**_built_in(), **(strategies or {})}

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds, the built-in ones first."""
        return tuple(self._strategies)

    def register(self, kind: str, strategy: Strategy) -> None:
        """Add a kind of step, or put another strategy in the place of one."""
        self._strategies[kind] = strategy

    def nodes(self, step: StepConfig, context: StepContext) -> StepNodes:
        """The nodes of one step.

        Raises:
            AgentConfigurationError: If the kind is unknown or the configuration cannot work.
        """
        if (strategy := self._strategies.get(step.type)) is None:
            raise AgentConfigurationError(
                f"Step {step.name!r} is of kind {step.type!r}, which is not registered. "
                f"{known_names(step.type, self.kinds)}"
            )
        made = strategy(step, context)
        return made if isinstance(made, StepNodes) else StepNodes(made)


def options_of(step: StepConfig, model: type[OptionsT]) -> OptionsT:
    """A step's configuration as the options of its kind.

    Raises:
        AgentConfigurationError: If an option is unknown, missing or has a wrong value.
    """
    try:
        return model.model_validate(step.config)
    except ValidationError as error:
        raise AgentConfigurationError(f"Step {step.name!r}: {explained(error, model)}") from None


def explained(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """A validation error as one sentence a mistake, with the nearest known name of an unknown option."""
    return " ".join(_sentences(error, tuple(model.model_fields) if model else ()))


def _sentences(error: ValidationError, known: tuple[str, ...]) -> Iterable[str]:
    for mistake in error.errors(include_url=False, include_input=False, include_context=False):
        at = ".".join(str(part) for part in mistake["loc"])
        if mistake["type"] == "extra_forbidden":
            yield f"no option {at!r}. {known_names(at, known)}"
        else:
            text = mistake["msg"].removeprefix("Value error, ")
            yield f"{at}: {text}." if at else f"{text}."


def _built_in() -> dict[str, Strategy]:
    from petal.core.steps import custom, llm, react, tool

    return {"llm": llm.nodes, "react": react.nodes, "tool": tool.nodes, "custom": custom.nodes}
