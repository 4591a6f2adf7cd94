"""What each built-in kind of step can be told: the models behind `StepConfig.config`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from petal.core.config.agent import Frozen, LLMConfig


class ModelOptions(Frozen):
    """Options of each step that asks a chat model."""

    llm: Any = None
    """An `LLMConfig`, a dict of its fields, `"provider:model"` or a ready chat model. Default: the agent's."""
    prompt_template: str | None = None
    """The user's message, filled from the state; see `petal.core.steps.prompts`."""
    system_prompt: str | None = None
    """The system message, filled from the state."""
    tools: tuple[Any, ...] = ()
    """Functions, LangChain tools, or in YAML names under `tools:` and `package.module:name`."""
    structured_output: Any = None
    """A pydantic model (or `package.module:Name`) that the answer must have the form of."""
    key: str | None = None
    """The state's key for the structured answer. Default: its fields go to the keys of the same names."""
    scratchpad_key: str | None = None
    """A key of the state that collects each tool call and its result as text."""
    dangling: Literal["error", "run", "ask"] = "error"
    """What becomes of tool calls that never got a result: the model is told so; a call that never began is run now;
    or a human says."""
    on_unknown: Literal["run", "ask", "fail"] = "run"
    """What becomes of a tool call that began before a crash and of which nothing tells whether it ended: it is run
    again under the same idempotency key; a human says; or the step fails."""

    @model_validator(mode="before")
    @classmethod
    def _gather_model(cls, value: Any) -> Any:
        """`provider`, `model`, `temperature`, … may stand beside the other options."""
        if not isinstance(value, dict):
            return value
        beside = {name: value[name] for name in LLMConfig.model_fields if name in value}
        if not beside:
            return value
        if value.get("llm") is not None:
            raise ValueError(f"both llm and {', '.join(beside)} are given; keep one")
        return {**{k: v for k, v in value.items() if k not in beside}, "llm": beside}

    @model_validator(mode="after")
    def _key_needs_output(self) -> Self:
        if self.key is not None and self.structured_output is None:
            raise ValueError("key is given without structured_output")
        if self.scratchpad_key is not None and not self.tools:
            raise ValueError("scratchpad_key is given without tools")
        return self


class LLMOptions(ModelOptions):
    """One question to a model; with tools, until it asks for no more of them."""

    kind: ClassVar[str] = "llm"


class ReactOptions(ModelOptions):
    """LangChain's `create_agent` as one step, a graph of its own."""

    kind: ClassVar[str] = "react"

    max_iterations: int = Field(default=25, ge=1)
    """Model calls at most in one run; then the step answers that the limit was reached."""


class ToolOptions(Frozen):
    """Runs the tool calls that the last message asks for."""

    kind: ClassVar[str] = "tool"

    tools: tuple[Any, ...] = Field(min_length=1)
    """As in `ModelOptions`."""
    scratchpad_key: str | None = None
    """A key of the state that collects each tool call and its result as text."""
    on_unknown: Literal["run", "ask", "fail"] = "run"
    """As in `ModelOptions`."""


class CustomOptions(Frozen):
    """A function of the user's own."""

    kind: ClassVar[str] = "custom"

    function: Any
    """`fn(state)`, sync or async, a Runnable or a graph, or `package.module:name`. LangGraph's injected
    arguments (`config`, `runtime`, `writer`, `store`) are given where the function names them."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the function."""
