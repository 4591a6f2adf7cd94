"""Collects what an agent is made of, step by step; opens nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from langchain_core.language_models import BaseChatModel
from langgraph.checkpoint.base import BaseCheckpointSaver
from pydantic import BaseModel, ValidationError

from petal.core.builders.director import AgentBuilderDirector
from petal.core.config.agent import (
    AgentConfig,
    ApprovalConfig,
    ConditionConfig,
    LLMConfig,
    MigrationConfig,
    RetryConfig,
    StepConfig,
)
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.steps.registry import StepRegistry, explained
from petal.errors import AgentConfigurationError, CheckpointerConfigurationError

if TYPE_CHECKING:
    from petal.core.agent import Agent

ModelT = TypeVar("ModelT", bound=BaseModel)

Checkpointer = CheckpointerConfig | BaseCheckpointSaver[Any] | str
"""A configuration, a ready saver (closed by its maker), or a database URL."""


class AgentDraft:
    """An agent's configuration while it grows."""

    def __init__(self, state_type: type, name: str) -> None:
        self.name = name
        self.state_type = state_type
        self.steps: list[StepConfig] = []
        self.llm: LLMConfig | BaseChatModel | None = None
        self.checkpointer: CheckpointerConfig | BaseCheckpointSaver[Any] | None = None
        self.version = 1
        self.migrations: list[MigrationConfig] = []

    def set_checkpointer(self, checkpointer: Checkpointer | None) -> None:
        """Keep state in `checkpointer`, or nowhere.

        Raises:
            CheckpointerConfigurationError: If it is none of the accepted kinds.
        """
        if isinstance(checkpointer, str):
            checkpointer = CheckpointerConfig.from_url(checkpointer)
        if checkpointer is not None and not isinstance(checkpointer, CheckpointerConfig | BaseCheckpointSaver):
            raise CheckpointerConfigurationError(
                "with_checkpointer takes a CheckpointerConfig, a database URL such as 'sqlite:///petal.db' or a "
                f"LangGraph saver, not {type(checkpointer).__name__}."
            )
        self.checkpointer = checkpointer

    def freeze(self) -> AgentConfig:
        """The configuration as it is now.

        Raises:
            AgentConfigurationError: If a part is of the wrong kind, or the steps do not fit together.
        """
        fields = {
            "name": self.name,
            "state_type": self.state_type,
            "steps": tuple(self.steps),
            "llm": self.llm,
            "checkpointer": self.checkpointer,
            "version": self.version,
            "migrations": tuple(self.migrations),
        }
        return made(AgentConfig, f"Agent {self.name!r}", fields).validated()


class AgentBuilder:
    """Builds an agent from steps, each a `StepConfig`.

    Args:
        state_type: A TypedDict, dataclass or pydantic model.
        name: Name of the agent and its graph.
        registry: The kinds of step; default: the built-in ones.
    """

    def __init__(self, state_type: type, *, name: str = "agent", registry: StepRegistry | None = None) -> None:
        self._config = AgentDraft(state_type, name)
        self._registry = registry or StepRegistry()

    @classmethod
    def from_config(cls, config: AgentConfig, registry: StepRegistry | None = None) -> Self:
        """A builder that goes on from a finished configuration."""
        builder = cls(config.state_type, name=config.name, registry=registry)
        builder._config.steps = list(config.steps)
        builder._config.llm = config.llm
        builder._config.checkpointer = config.checkpointer
        builder._config.version = config.version
        builder._config.migrations = list(config.migrations)
        return builder

    @property
    def checkpointer(self) -> CheckpointerConfig | BaseCheckpointSaver[Any] | None:
        """Where state is kept, as far as it has been said; None is nowhere."""
        return self._config.checkpointer

    def with_step(self, step: StepConfig) -> Self:
        """Add a step behind the others."""
        self._config.steps.append(step)
        return self

    def with_checkpointer(self, checkpointer_config: Checkpointer) -> Self:
        """Keep the agent's state.

        Args:
            checkpointer_config: A `CheckpointerConfig`, a database URL, or a ready LangGraph saver, which is
                not closed with the agent.

        Raises:
            CheckpointerConfigurationError: (a ValueError) If it is none of these.
        """
        self._config.set_checkpointer(checkpointer_config)
        return self

    def with_version(self, version: int) -> Self:
        """Which shape the state has; state of earlier versions needs a migration each.

        Raises:
            AgentConfigurationError: If it is no version: 1 is the first.
        """
        if type(version) is not int or version < 1:
            raise AgentConfigurationError(f"A version is a whole number from 1 on, not {version!r}.")
        self._config.version = version
        return self

    def with_migration(self, start: int, to: int, function: Callable[[dict[str, Any]], dict[str, Any]]) -> Self:
        """How state of one version becomes that of a later one.

        Args:
            start: The version that wrote the state.
            to: The version that the function makes of it.
            function: Is given the state's values as a dict, and returns those of the later version.

        Raises:
            AgentConfigurationError: If it does not lead to a later version, or is no function.
        """
        if not callable(function):
            raise AgentConfigurationError(f"A migration is a function of the state's values, not {function!r}.")
        fields = {"from": start, "to": to, "function": function}
        self._config.migrations.append(made(MigrationConfig, f"The migration from {start} to {to}", fields))
        return self

    def with_llm(self, provider: LLMConfig | BaseChatModel | str, model: str | None = None, **settings: Any) -> Self:
        """The model of each step that names none of its own.

        Args:
            provider: `"openai"`; or the whole of it: `"openai:gpt-4o"`, an `LLMConfig`, a ready model.
            model: The provider's name of the model.
            settings: Fields of `LLMConfig`, and settings of the provider's class.

        Raises:
            AgentConfigurationError: If they do not fit together.
        """
        self._config.llm = llm_config(provider, model, settings)
        return self

    def with_condition(self, condition: ConditionConfig) -> Self:
        """Where the latest step goes on."""
        return self._amend("with_condition", condition=condition)

    def with_next(self, target: str) -> Self:
        """The step after the latest one, or `END`."""
        return self._amend("with_next", next=target)

    def with_retry(self, retry: RetryConfig) -> Self:
        """How often the latest step is tried."""
        return self._amend("with_retry", retry=retry)

    def with_timeout(self, seconds: float) -> Self:
        """How long one try of the latest step may take."""
        return self._amend("with_timeout", timeout=seconds)

    def with_approval(self, approval: ApprovalConfig) -> Self:
        """A human answers before the latest step runs."""
        return self._amend("with_approval", approval=approval)

    def with_options(self, method: str, kinds: Sequence[str], options: Mapping[str, Any]) -> Self:
        """Set options of the latest step, which must be of one of `kinds`.

        Raises:
            AgentConfigurationError: If there is no step, or it is of another kind.
        """
        latest = self._latest(method)
        if latest.type not in kinds:
            raise AgentConfigurationError(
                f"{method} belongs behind a step of kind {' or '.join(kinds)}; the latest, {latest.name!r}, is of "
                f"kind {latest.type!r}."
            )
        return self._amend(method, config={**latest.config, **options})

    @property
    def registry(self) -> StepRegistry:
        """The kinds of step there are."""
        return self._registry

    @property
    def steps(self) -> tuple[StepConfig, ...]:
        """The steps so far."""
        return tuple(self._config.steps)

    @property
    def config(self) -> AgentConfig:
        """The finished configuration."""
        return self._config.freeze()

    def build(self) -> Agent:
        """The agent. Opens nothing: connections open at first use, models are built then.

        Raises:
            AgentConfigurationError: If the steps do not fit together, or a prompt names an unknown key.
            CheckpointerConfigurationError: If the checkpointer lacks an option, or its package is missing.
        """
        return AgentBuilderDirector(self.config, self._registry).build()

    def _latest(self, method: str) -> StepConfig:
        if not self._config.steps:
            raise AgentConfigurationError(f"{method} belongs behind a step; add one first.")
        return self._config.steps[-1]

    def _amend(self, method: str, **changes: Any) -> Self:
        latest = self._latest(method)
        fields = {name: getattr(latest, name) for name in type(latest).model_fields}
        self._config.steps[-1] = made(StepConfig, f"Step {latest.name!r}", {**fields, **changes})
        return self


def made(model: type[ModelT], what: str, fields: Mapping[str, Any]) -> ModelT:
    """A part from its fields, with a typed error where they do not fit."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise AgentConfigurationError(f"{what}: {explained(error)}") from None


def llm_config(
    provider: LLMConfig | BaseChatModel | str, model: str | None, settings: Mapping[str, Any]
) -> LLMConfig | BaseChatModel:
    """A model's configuration from the ways it can be written in code."""
    if isinstance(provider, BaseChatModel):
        if model is not None or settings:
            raise AgentConfigurationError("A ready model takes no further settings; set them where it is made.")
        return provider
    if isinstance(provider, str):
        given = LLMConfig.fields_of(provider) if model is None and ":" in provider else {"provider": provider}
        given |= {"model": model} if model is not None else {}
    elif not isinstance(provider, LLMConfig):
        raise AgentConfigurationError(
            "A model is 'provider:model', a dict, an LLMConfig or a LangChain chat model, not "
            f"{type(provider).__name__}."
        )
    else:
        given = provider.model_dump(exclude_unset=True) | ({"model": model} if model is not None else {})
    return made(LLMConfig, "The model", {**given, **settings})
