"""Short names for building agents: the whole of an agent in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import BaseModel

from petal.core.builders.agent import AgentBuilder, Checkpointer, llm_config, made
from petal.core.config.agent import (
    AgentConfig,
    ApprovalConfig,
    ConditionConfig,
    LLMConfig,
    RetryConfig,
    StepConfig,
)
from petal.core.steps.registry import StepRegistry
from petal.errors import AgentConfigurationError
from petal.types.state import DefaultState

if TYPE_CHECKING:
    from petal.core.agent import Agent

Model = LLMConfig | BaseChatModel | str | Mapping[str, Any]
"""A chat model: `"openai:gpt-4o"`, `{"provider": …, "model": …}`, an `LLMConfig`, or a ready model."""

Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""A state's values of one version -> those of a later one."""

_MODEL_KINDS = ("llm", "react")


class AgentFactory:
    """Builds an agent step by step.

    ```python
    agent = (
        AgentFactory(DefaultState)
        .with_chat(llm="openai:gpt-4o", system_prompt="You are a helpful assistant.")
        .with_checkpointer(CheckpointerConfig(type="sqlite", config={"db_file": "chat.db"}))
        .build()
    )
    ```

    Steps run in the order given, unless `with_condition` or `with_next` says otherwise. Methods that begin
    with `with_` and speak of a step mean the latest one.

    Args:
        state_type: A TypedDict, dataclass or pydantic model; steps that ask a model add `messages` to it.
        name: Name of the agent and its graph.
        registry: The kinds of step there are; default: the built-in ones.
    """

    def __init__(
        self, state_type: type = DefaultState, *, name: str = "agent", registry: StepRegistry | None = None
    ) -> None:
        self._builder = AgentBuilder(state_type, name=name, registry=registry)

    @classmethod
    def from_yaml(cls, path: str | Path, *, registry: StepRegistry | None = None) -> Self:
        """The agent that a YAML file describes; further steps and settings may be added.

        Raises:
            YAMLConfigurationError: If the file is missing or holds a mistake, with its line and key.
        """
        from petal.core.yaml.loader import load_agent

        factory = cls(registry=registry)
        factory._builder = AgentBuilder.from_config(load_agent(path, registry=registry), registry)
        return factory

    def node_from_yaml(self, path: str | Path) -> Self:
        """Add the step that a YAML file of one step describes, and keep state where the file says, if it does.

        Raises:
            YAMLConfigurationError: If the file is missing or holds a mistake, with its line and key.
            AgentConfigurationError: If the file names a checkpointer, and the agent has another one already.
        """
        from petal.core.yaml.loader import load_step

        loaded = load_step(path, registry=self._builder.registry)
        if loaded.checkpointer is not None:
            if self._builder.checkpointer not in (None, loaded.checkpointer):
                raise AgentConfigurationError(
                    f"{path} names a checkpointer, and the agent has another one already; leave one of them out."
                )
            self._builder.with_checkpointer(loaded.checkpointer)
        self._builder.with_step(loaded.step)
        return self

    def add(
        self, step: Callable[..., Any] | Runnable[Any, Any] | StepConfig, node_name: str | None = None, **arguments: Any
    ) -> Self:
        """Add a step.

        Args:
            step: A function of the state, sync or async, that returns an update; a Runnable or a graph; or a
                `StepConfig` of any kind.
            node_name: The step's name; default: the function's.
            arguments: Further keyword arguments of the function.

        Raises:
            AgentConfigurationError: If the step has no usable name, or is none of these.
        """
        if isinstance(step, StepConfig):
            if arguments:
                raise AgentConfigurationError("A StepConfig takes no arguments; put them into its config.")
            if node_name is not None:
                step = made(StepConfig, f"Step {node_name!r}", {**_fields(step), "name": node_name})
            self._builder.with_step(step)
            return self
        if not callable(step) and not isinstance(step, Runnable):
            raise AgentConfigurationError(
                f"add takes a function of the state, a Runnable, a graph or a StepConfig, not {type(step).__name__}."
            )
        own_name = step.get_name() if isinstance(step, Runnable) else getattr(step, "__name__", "")
        name = node_name or str(own_name)
        if name in ("", "<lambda>"):
            raise AgentConfigurationError("This step has no name of its own; pass node_name='...'.")
        return self._add("custom", name, function=step, arguments=arguments or None)

    def with_chat(
        self,
        llm: Model | None = None,
        prompt_template: str | None = None,
        system_prompt: str | None = None,
        llm_config: Model | None = None,
        *,
        node_name: str = "chat",
        **kw: Any,
    ) -> Self:
        """Add a step that asks a chat model and adds its answer to `messages`.

        Args:
            llm: The model; default: that of `with_llm`.
            prompt_template: The user's message, with `{keys}` of the state.
            system_prompt: The system message, likewise.
            llm_config: Another name for `llm`.
            node_name: The step's name; a second chat step is called `chat_2` by itself, and so on.
            kw: Fields of `LLMConfig` (`provider`, `model`, `temperature`, …) and settings of the provider's class.

        Raises:
            AgentConfigurationError: If settings do not fit together.
        """
        model = _model(llm, llm_config, kw)
        return self._add(
            "llm",
            self._free_name(node_name),
            llm=model,
            prompt_template=prompt_template,
            system_prompt=system_prompt,
        )

    def with_react_loop(
        self,
        tools: Sequence[Any],
        *,
        llm: Model | None = None,
        prompt_template: str | None = None,
        system_prompt: str | None = None,
        max_iterations: int = 25,
        scratchpad_key: str | None = None,
        node_name: str = "react",
        llm_config: Model | None = None,
        **kw: Any,
    ) -> Self:
        """Add a step that reasons and calls tools until it is done: LangChain's `create_agent`.

        Args:
            tools: Functions or LangChain tools.
            max_iterations: Model calls at most in one run.
            scratchpad_key: A key of the state that collects each call and result as text.

        The other arguments are those of `with_chat`.
        """
        return self._add(
            "react",
            self._free_name(node_name),
            tools=tuple(tools),
            llm=_model(llm, llm_config, kw),
            prompt_template=prompt_template,
            system_prompt=system_prompt,
            max_iterations=max_iterations,
            scratchpad_key=scratchpad_key,
        )

    def with_tool_step(
        self, tools: Sequence[Any], *, scratchpad_key: str | None = None, node_name: str = "tools"
    ) -> Self:
        """Add a step that runs the tool calls of the last message."""
        return self._add("tool", self._free_name(node_name), tools=tuple(tools), scratchpad_key=scratchpad_key)

    def with_prompt(self, prompt_template: str) -> Self:
        """The prompt of the latest step, with `{keys}` of the state."""
        self._builder.with_options("with_prompt", _MODEL_KINDS, {"prompt_template": prompt_template})
        return self

    def with_system_prompt(self, system_prompt: str) -> Self:
        """The system prompt of the latest step, with `{keys}` of the state."""
        self._builder.with_options("with_system_prompt", _MODEL_KINDS, {"system_prompt": system_prompt})
        return self

    def with_structured_output(self, model: type[BaseModel], key: str | None = None) -> Self:
        """The latest step answers in the form of a pydantic model.

        Args:
            model: The form.
            key: The state's key for the answer; default: each field goes to the key of its name.
        """
        options = {"structured_output": model, **({"key": key} if key is not None else {})}
        self._builder.with_options("with_structured_output", _MODEL_KINDS, options)
        return self

    def with_tools(self, tools: Sequence[Any], scratchpad_key: str | None = None) -> Self:
        """Let the latest chat step call tools: each call runs in a node behind it, which comes back to it.

        Args:
            tools: Functions or LangChain tools.
            scratchpad_key: A key of the state that collects each call and result as text.
        """
        options = {"tools": tuple(tools), **({"scratchpad_key": scratchpad_key} if scratchpad_key else {})}
        self._builder.with_options("with_tools", _MODEL_KINDS, options)
        return self

    def with_react_tools(self, tools: Sequence[Any], scratchpad_key: str = "scratchpad") -> Self:
        """As `with_tools`, with a scratchpad of actions and observations in the state."""
        return self.with_tools(tools, scratchpad_key)

    def with_dangling_calls(self, policy: Literal["error", "run", "ask"]) -> Self:
        """What the latest step does about tool calls that never got a result, after a crash or an abandoned question.

        Args:
            policy: `"error"`, as without this: the model is told. `"run"`: a call that never began is run now.
                `"ask"`: a human says; see `docs/history.md`.
        """
        self._builder.with_options("with_dangling_calls", _MODEL_KINDS, {"dangling": policy})
        return self

    def with_unknown_calls(self, policy: Literal["run", "ask", "fail"]) -> Self:
        """What the latest step does about a tool call that began before a crash, and that may have ended or not.

        Args:
            policy: `"run"`, as without this: it is run again, under the same `petal.idempotency_key()`. `"ask"`: a
                human says. `"fail"`: `UnknownEffectError`; see `docs/effects.md`.
        """
        self._builder.with_options("with_unknown_calls", (*_MODEL_KINDS, "tool"), {"on_unknown": policy})
        return self

    def with_llm(self, provider: LLMConfig | BaseChatModel | str, model: str | None = None, **settings: Any) -> Self:
        """The model of each step that names none of its own; see `AgentBuilder.with_llm`."""
        self._builder.with_llm(provider, model, **settings)
        return self

    def with_condition(self, fn: Callable[[Any], Any] | str, routes: Mapping[Any, str]) -> Self:
        """Where the latest step goes on.

        Args:
            fn: `fn(state)`, sync or async; or the name of a state's key, whose value chooses. A list goes on
                to several steps at once.
            routes: What was returned -> a step's name, or `END`.
        """
        source = {"key": fn} if isinstance(fn, str) else {"function": fn}
        self._builder.with_condition(made(ConditionConfig, "with_condition", {**source, "routes": dict(routes)}))
        return self

    def with_next(self, target: str) -> Self:
        """The step after the latest one, or `END`, instead of the next in the order given."""
        self._builder.with_next(target)
        return self

    def with_retry(
        self, n: int, *, delay: float = 0.5, backoff: float = 2.0, on: Sequence[type[Exception]] = (Exception,)
    ) -> Self:
        """Try the latest step again when it raises.

        Args:
            n: Tries in all.
            delay: Seconds before the second try.
            backoff: Factor by which each further wait is longer.
            on: The exceptions that are tried again.
        """
        fields = {"attempts": n, "delay": delay, "backoff": backoff, "on": tuple(on)}
        self._builder.with_retry(made(RetryConfig, "with_retry", fields))
        return self

    def with_timeout(self, s: float) -> Self:
        """Let one try of the latest step take at most `s` seconds, then raise LangGraph's NodeTimeoutError.

        A sync function cannot be stopped: its thread runs on, and what it returns is dropped. It begins no `petal.step`
        any more.
        """
        self._builder.with_timeout(s)
        return self

    def with_approval(self, prompt: str = ApprovalConfig().prompt, *, on_reject: str = "END") -> Self:
        """A human answers before the latest step runs; see `Thread.resume`.

        Args:
            prompt: The question, with `{keys}` of the state; `{step}` is the step's name.
            on_reject: Where a no leads: `END`, `"skip"` (behind the step), `"fail"`, or a step's name.
        """
        self._builder.with_approval(made(ApprovalConfig, "with_approval", {"prompt": prompt, "on_reject": on_reject}))
        return self

    def with_checkpointer(self, checkpointer_config: Checkpointer) -> Self:
        """Keep the agent's state; see `AgentBuilder.with_checkpointer`."""
        self._builder.with_checkpointer(checkpointer_config)
        return self

    def with_version(self, version: int) -> Self:
        """Which shape the agent's state has, 1 unless said; see `with_migration`."""
        self._builder.with_version(version)
        return self

    def with_migration(self, start: int, to: int, function: Migration) -> Self:
        """How state that an earlier version kept becomes that of a later one, when it is loaded.

        Args:
            start: The version that wrote the state.
            to: The version that the function makes of it.
            function: Is given the state's values as a dict, without keys that were never written, and returns those
                of the later version. A value whose type is gone or has changed comes as a `RawValue`.

        Raises:
            AgentConfigurationError: If it does not lead to a later version, or is no function.
        """
        self._builder.with_migration(start, to, function)
        return self

    def migration(self, start: int, to: int) -> Callable[[Migration], Migration]:
        """`with_migration` as a decorator: `@factory.migration(1, 2)`."""

        def register(function: Migration) -> Migration:
            self.with_migration(start, to, function)
            return function

        return register

    @property
    def config(self) -> AgentConfig:
        """The finished configuration."""
        return self._builder.config

    def build(self) -> Agent:
        """The agent; see `AgentBuilder.build`. Each call gives another one, equal to the first."""
        return self._builder.build()

    def diagram(self) -> str:
        """The graph as Mermaid text, made here without a network."""
        return self.build().diagram()

    def _add(self, kind: str, name: str, **options: Any) -> Self:
        config = {key: value for key, value in options.items() if value is not None}
        self._builder.with_step(made(StepConfig, f"Step {name!r}", {"type": kind, "name": name, "config": config}))
        return self

    def _free_name(self, name: str) -> str:
        """The name, or with a number behind it where a step has it already."""
        taken = {step.name for step in self._builder.steps}
        number = 2
        free = name
        while free in taken:
            free, number = f"{name}_{number}", number + 1
        return free


def _model(llm: Model | None, other: Model | None, settings: Mapping[str, Any]) -> LLMConfig | BaseChatModel | None:
    """The model of a step from the ways it can be written in code; None stands for the agent's own."""
    if llm is not None and other is not None:
        raise AgentConfigurationError("Both llm and llm_config are given; keep one.")
    given = llm if llm is not None else other
    if given is None:
        return made(LLMConfig, "The model", settings) if settings else None
    if isinstance(given, Mapping):
        return made(LLMConfig, "The model", {**given, **settings})
    if isinstance(given, str):
        return made(LLMConfig, "The model", {**LLMConfig.fields_of(given), **settings})
    return llm_config(given, None, settings)


def _fields(step: StepConfig) -> dict[str, Any]:
    return {name: getattr(step, name) for name in type(step).model_fields}
