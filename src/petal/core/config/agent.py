"""What an agent is made of: frozen data that touches nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from langchain_core.language_models import BaseChatModel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.config.secrecy import is_secret
from petal.errors import AgentConfigurationError, known_names, nearest

_RESERVED = frozenset({START, END, "END", "START"})


def _node_name(name: str) -> str:
    if not name or name in _RESERVED or any(mark in name for mark in ":|"):
        raise ValueError(f"{name!r} cannot name a step: it is empty, reserved, or holds ':' or '|'")
    return name


def _target(name: str) -> str:
    return END if name == "END" else name


NodeName = Annotated[str, AfterValidator(_node_name)]
Target = Annotated[str, AfterValidator(_target)]
"""The name of a step, or `END`."""


class Frozen(BaseModel):
    """Base of the parts: equal when their fields are, and never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)


class LLMConfig(BaseModel):
    """Which chat model to use. Fields beyond those named here go to the provider's class as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=(), use_attribute_docstrings=True)

    provider: str | None = None
    """`openai`, `anthropic`, `ollama`, any other of LangChain's `init_chat_model`, `demo` or `local`.
    Without one it is inferred from the model's name where LangChain can."""
    model: str = ""
    """The provider's name of the model; for `local` the path of a GGUF file."""
    temperature: float | None = None
    """How freely the model chooses its words; 0 is the least."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of an answer at most."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds a request may take."""
    max_retries: int | None = Field(default=None, ge=0)
    """How often a failed request is sent again."""
    base_url: str | None = None
    """Where the provider's protocol is served, if not at its own place."""
    api_key: SecretStr | None = None
    """Default: the provider's environment variable."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return cls.fields_of(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _no_slip_of_the_pen(self) -> Self:
        for name in self.model_extra or {}:
            if guess := nearest(name, type(self).model_fields, likeness=0.8):
                raise ValueError(f"no setting {name!r}; did you mean {guess!r}?")
        if not self.model and self.provider is None:
            raise ValueError("neither provider nor model is given; write e.g. 'openai:gpt-4o'")
        return self

    @staticmethod
    def fields_of(text: str) -> dict[str, Any]:
        """`provider` and `model` of `"provider:model"`; without a colon the text is the model."""
        provider, colon, model = text.partition(":")
        return {"provider": provider, "model": model} if colon else {"model": text}

    @property
    def name(self) -> str:
        """`provider:model`, as it is written in one string."""
        return f"{self.provider}:{self.model}" if self.provider else self.model

    def __repr_args__(self) -> Any:
        for name, value in super().__repr_args__():
            hides = value is not None and name in (self.model_extra or {}) and is_secret(str(name))
            yield name, "***" if hides else value

    __str__ = BaseModel.__repr__


class RetryConfig(Frozen):
    """How often a step that raised is tried again."""

    attempts: int = Field(ge=1)
    """Tries in all, the first one included."""
    delay: float = Field(default=0.5, ge=0)
    """Seconds before the second try."""
    backoff: float = Field(default=2.0, ge=1)
    """Factor by which each further wait is longer."""
    on: tuple[Any, ...] = (Exception,)
    """Exception types that are tried again; in YAML `package.module:Name` or a built-in name."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"attempts": value} if isinstance(value, int) and not isinstance(value, bool) else value


class ConditionConfig(Frozen):
    """Where to go after a step: `routes[function(state)]`, or `routes[state[key]]`."""

    function: Any = None
    """`fn(state)`, sync or async, or `package.module:name`."""
    key: str | None = None
    """A key of the state whose value chooses."""
    routes: dict[Any, Target] = Field(min_length=1)
    """What was returned -> a step's name or `END`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.function is None) == (self.key is None):
            raise ValueError("a condition has either a function or a key of the state")
        return self


class ApprovalConfig(Frozen):
    """A human answers before the step runs."""

    prompt: str = "Run step {step}?"
    """The question, filled from the state; `{step}` is the step's name."""
    on_reject: Literal["skip", "fail"] | Target = END
    """After a no: `END`, `skip` to go on behind the step, where its condition says if it has one, `fail` to raise, or
    a step's name."""

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        if value is True:
            return {}
        return {"prompt": value} if isinstance(value, str) else value


class StepConfig(Frozen):
    """One step of an agent."""

    type: str
    """`llm`, `react`, `tool`, `custom`, or a kind that the user's `StepRegistry` knows."""
    name: NodeName
    config: dict[str, Any] = Field(default_factory=dict)
    """What the kind of step needs; see `petal.core.config.steps`."""
    condition: ConditionConfig | None = None
    next: Target | None = None
    """The step after this one, or `END`. Default: the next in the list."""
    retry: RetryConfig | None = None
    timeout: float | None = Field(default=None, gt=0)
    """Seconds one try may take."""
    approval: ApprovalConfig | None = None

    @model_validator(mode="after")
    def _one_way_on(self) -> Self:
        if self.condition is not None and self.next is not None:
            raise ValueError(f"step {self.name!r} has both a condition and a next step")
        return self


class MigrationConfig(Frozen):
    """How state of one version of an agent becomes that of a later one."""

    start: int = Field(alias="from", ge=1)
    """The version that wrote the state."""
    to: int
    """The version that the function makes of it."""
    function: Any
    """`fn(values)`, which is given the state's values as a dict and returns those of the later version; or
    `package.module:name`."""

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.to <= self.start:
            raise ValueError(f"a migration leads to a later version, not from {self.start} to {self.to}")
        return self


class AgentConfig(Frozen):
    """A whole agent.

    Raises:
        AgentConfigurationError: From `validated`, if the steps do not fit together.
    """

    name: str = "agent"
    state_type: type
    """A TypedDict, dataclass or pydantic model."""
    steps: tuple[StepConfig, ...] = ()
    llm: LLMConfig | BaseChatModel | None = None
    """Used by each step that names no model of its own."""
    checkpointer: CheckpointerConfig | BaseCheckpointSaver[Any] | None = None
    """A configuration, or a ready saver, which its maker closes."""
    version: int = Field(default=1, ge=1)
    """Which shape the state has; one more whenever kept state would no longer fit."""
    migrations: tuple[MigrationConfig, ...] = ()
    """What brings state of each earlier version to this one."""

    @field_validator("checkpointer", mode="before")
    @classmethod
    def _from_url(cls, value: Any) -> Any:
        return CheckpointerConfig.from_url(value) if isinstance(value, str) else value

    def validated(self) -> Self:
        """This configuration, if its steps fit together."""
        if not self.steps:
            raise AgentConfigurationError(f"Agent {self.name!r} has no steps; add one, e.g. .with_chat(llm='demo:').")
        names = [step.name for step in self.steps]
        for name in names:
            if names.count(name) > 1:
                raise AgentConfigurationError(f"Two steps are called {name!r}; give one of them another name.")
        for step in self.steps:
            for target in _targets(step):
                if target != END and target not in names:
                    raise AgentConfigurationError(
                        f"Step {step.name!r} goes on to {target!r}, which is no step. "
                        f"{known_names(target, [*names, 'END'])}"
                    )
        self._check_migrations()
        return self

    def _check_migrations(self) -> None:
        """See that there is one way from each earlier version to this one."""
        steps: dict[int, int] = {}
        for migration in self.migrations:
            if migration.start in steps:
                raise AgentConfigurationError(
                    f"Agent {self.name!r} has two migrations from version {migration.start}; keep one."
                )
            if migration.to > self.version:
                raise AgentConfigurationError(
                    f"Agent {self.name!r} has a migration to version {migration.to}, but is of version "
                    f"{self.version}; raise the version, or leave the migration out."
                )
            steps[migration.start] = migration.to
        for version in range(1, self.version):
            if version not in steps:
                raise AgentConfigurationError(
                    f"Agent {self.name!r} is of version {self.version}, and no migration leads on from version "
                    f"{version}; add one, from {version} to {version + 1} or later."
                )


def _targets(step: StepConfig) -> list[str]:
    targets = list(step.condition.routes.values()) if step.condition else []
    targets += [] if step.next is None else [step.next]
    if step.approval and step.approval.on_reject not in ("skip", "fail"):
        targets.append(step.approval.on_reject)
    return targets
