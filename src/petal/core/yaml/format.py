"""The YAML format of agents: one pydantic model is its whole definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from petal.core.config.agent import (
    ApprovalConfig,
    ConditionConfig,
    LLMConfig,
    MigrationConfig,
    NodeName,
    RetryConfig,
    Target,
)
from petal.core.config.checkpointer import MemoryOptions, PostgresOptions, SqliteOptions
from petal.core.config.steps import CustomOptions, LLMOptions, ReactOptions, ToolOptions
from petal.tools.mcp import MCPServer

BUILT_IN = ("llm", "react", "tool", "custom")
"""The kinds of step whose `config` the format knows."""

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_DOCUMENTED = ConfigDict(use_attribute_docstrings=True)


def tag_of(kind: Any) -> str:
    """How a kind of step or storage is called in pydantic's locations, so that it is no key of the document."""
    return f"<{kind}>"


@dataclass(frozen=True, slots=True)
class OrShort:
    """In the JSON Schema, a short form beside the mapping."""

    types: tuple[str, ...]
    description: str

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        short = [{"type": kind, "description": self.description} for kind in self.types]
        return {"anyOf": [*short, handler(core_schema)]}


LLM = Annotated[LLMConfig, OrShort(("string",), "`provider:model`, e.g. `openai:gpt-4o`.")]


class Part(BaseModel):
    """Base of the format's own parts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class StateEntry(Part):
    """One key of the state."""

    type: str
    """`str`, `int`, `float`, `bool`, `bytes`, `list[str]`, `dict[str, Any]`, `str | None`, `Literal['a', 'b']`,
    `messages`, or `package.module:Name`."""
    default: Any = None
    """The value before any was written."""
    reducer: str | None = None
    """How a new value joins the old one: `append`, `add`, `merge` or `package.module:function`; without one it
    replaces it."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class ToolEntry(Part):
    """A tool, under the name by which steps and models know it; or all tools of an MCP server."""

    function: str | None = None
    """`package.module:name` of a function or LangChain tool."""
    description: str | None = None
    """What the model is told of it; default: the function's docstring."""
    mcp: MCPServer | None = None
    """The server, instead of a function."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"function": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.function is None) == (self.mcp is None):
            raise ValueError("A tool has either a function or an mcp server.")
        if self.mcp is not None and self.description is not None:
            raise ValueError("The tools of an mcp server come with descriptions of their own.")
        return self


class LLMStepOptions(LLMOptions):
    """One question to a model; with tools, until it asks for no more of them."""

    model_config = _DOCUMENTED

    llm: LLM | None = None
    """The model; its fields may also stand beside the other options. Default: the agent's."""
    tools: tuple[str, ...] = ()
    """Names under `tools:`, or `package.module:name`."""
    structured_output: str | None = None
    """`package.module:Name` of a pydantic model that the answer must have the form of."""


class ReactStepOptions(ReactOptions):
    """LangChain's `create_agent` as one step: reasons and calls tools until it is done."""

    model_config = _DOCUMENTED

    llm: LLM | None = None
    """The model; its fields may also stand beside the other options. Default: the agent's."""
    tools: tuple[str, ...] = ()
    """Names under `tools:`, or `package.module:name`."""
    structured_output: str | None = None
    """`package.module:Name` of a pydantic model that the answer must have the form of."""


class ToolStepOptions(ToolOptions):
    """Runs the tool calls that the last message asks for."""

    model_config = _DOCUMENTED

    tools: tuple[str, ...] = Field(min_length=1)
    """Names under `tools:`, or `package.module:name`."""


class CustomStepOptions(CustomOptions):
    """A function of the user's own."""

    model_config = _DOCUMENTED

    function: str
    """`package.module:name` of `fn(state)`, sync or async, a Runnable or a graph."""


class Condition(ConditionConfig):
    """Where to go after a step: `routes[function(state)]`, or `routes[state[key]]`."""

    model_config = _DOCUMENTED

    function: str | None = None
    """`package.module:name` of `fn(state)`, sync or async."""


class Retry(RetryConfig):
    """How often a step that raised is tried again."""

    model_config = _DOCUMENTED

    on: tuple[str, ...] = ("Exception",)
    """Exception types that are tried again: a built-in name or `package.module:Name`."""

    @model_validator(mode="before")
    @classmethod
    def _from_digits(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value


class Migration(MigrationConfig):
    """How state of one version of the agent becomes that of a later one."""

    model_config = _DOCUMENTED

    function: str
    """`package.module:name` of `fn(values)`, which returns the values of the later version."""


def _approval(value: Any) -> Any:
    """`yes` and `no` are text in YAML 1.2, as is what comes from `${…}`; no question is called like that."""
    if isinstance(value, str):
        value = {"true": True, "yes": True, "false": False, "no": False}.get(value.lower(), value)
    return None if value is False else value


class StepEntry(Part):
    """One step of an agent."""

    name: NodeName
    """The step's name; no other step of the agent has it."""
    condition: Condition | None = None
    """Where to go after the step, chosen by the state."""
    next: Target | None = None
    """The step after this one, or `END`. Default: the next in the list."""
    retry: Annotated[Retry, OrShort(("integer",), "Tries in all.")] | None = None
    """How often the step is tried when it raises."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds one try may take."""
    approval: Annotated[
        ApprovalConfig | None,
        BeforeValidator(_approval),
        OrShort(("boolean", "string"), "Whether a human answers first; as text, the question."),
    ] = None
    """A human answers before the step runs."""

    @model_validator(mode="after")
    def _one_way_on(self) -> Self:
        if self.condition is not None and self.next is not None:
            raise ValueError("A step has a condition or a next step, not both.")
        return self


class LLMStep(StepEntry):
    """A step that asks a chat model and adds its answer to `messages`."""

    type: Literal["llm"]
    config: LLMStepOptions = LLMStepOptions()
    """What to ask, and whom."""


class ReactStep(StepEntry):
    """A step that reasons and calls tools in a loop."""

    type: Literal["react"]
    config: ReactStepOptions = ReactStepOptions()
    """What to ask, whom, and with which tools."""


class ToolStep(StepEntry):
    """A step that runs the tool calls of the last message."""

    type: Literal["tool"]
    config: ToolStepOptions
    """The tools."""


class CustomStep(StepEntry):
    """A step that runs a function."""

    type: Literal["custom"]
    config: CustomStepOptions
    """The function."""


class OtherStep(StepEntry):
    """A step of a kind that a `StepRegistry` knows."""

    type: Annotated[str, WithJsonSchema({"type": "string", "not": {"enum": list(BUILT_IN)}})]
    """The kind's name in the registry."""
    config: dict[str, Any] = Field(default_factory=dict)
    """What the kind needs; handed on as it is."""


def _step_tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return tag_of(kind if kind in BUILT_IN else "other")


Step = Annotated[
    Annotated[LLMStep, Tag("<llm>")]
    | Annotated[ReactStep, Tag("<react>")]
    | Annotated[ToolStep, Tag("<tool>")]
    | Annotated[CustomStep, Tag("<custom>")]
    | Annotated[OtherStep, Tag("<other>")],
    Discriminator(_step_tag),
]


class CheckpointerEntry(Part):
    """Where the agent keeps its state."""

    enabled: bool = True
    """Whether state is kept at all."""


class MemoryCheckpointer(CheckpointerEntry):
    """State in this process's memory."""

    type: Literal["memory"] = "memory"
    config: MemoryOptions | None = None
    """Options of the storage."""


class SqliteCheckpointer(CheckpointerEntry):
    """State in an SQLite file."""

    type: Literal["sqlite"]
    config: SqliteOptions
    """Options of the storage."""


class PostgresCheckpointer(CheckpointerEntry):
    """State in a PostgreSQL database."""

    type: Literal["postgres"]
    config: PostgresOptions
    """Options of the storage."""


def _checkpointer_tag(value: Any) -> str:
    if isinstance(value, str):
        return tag_of("url")
    return tag_of(value.get("type", "memory") if isinstance(value, dict) else getattr(value, "type", "memory"))


Checkpointer = Annotated[
    Annotated[MemoryCheckpointer, Tag("<memory>")]
    | Annotated[SqliteCheckpointer, Tag("<sqlite>")]
    | Annotated[PostgresCheckpointer, Tag("<postgres>")]
    | Annotated[str, Tag("<url>"), Field(description="`sqlite:///file.db`, `postgresql://…` or `memory://`.")],
    Discriminator(_checkpointer_tag),
]

Tools = dict[str, Annotated[ToolEntry, OrShort(("string",), "`package.module:name`.")]]


class AgentFile(Part):
    """A whole agent."""

    model_config = ConfigDict(
        title="Petal agent", json_schema_extra={"not": {"required": ["state_type", "state_schema"]}}
    )

    name: str = "agent"
    """The agent's name."""
    state_type: str | None = None
    """`DefaultState`, `ConversationState`, or `package.module:Name` of a TypedDict, dataclass or pydantic model.
    Default: `DefaultState`."""
    state_schema: dict[str, Annotated[StateEntry, OrShort(("string",), "The type.")]] | None = Field(
        default=None, min_length=1
    )
    """The state's keys, instead of a `state_type`: a type each, or a mapping of type, default and reducer."""
    llm: LLM | None = None
    """The model of each step that names none of its own."""
    checkpointer: Checkpointer | None = None
    """Where state is kept: a mapping, or a database URL. Without it no state outlives a run."""
    tools: Tools = Field(default_factory=dict)
    """Tools by name, for the steps."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """The steps, in the order in which they run."""
    version: int = Field(default=1, ge=1)
    """Which shape the state has; one more whenever kept state would no longer fit."""
    migrations: tuple[Migration, ...] = ()
    """What brings state of each earlier version to this one."""

    @model_validator(mode="after")
    def _one_state(self) -> Self:
        if self.state_type is not None and self.state_schema is not None:
            raise ValueError("Both state_type and state_schema are given; keep one.")
        return self


class StepFile(Part):
    """A single step, and beside its keys what it needs from an agent."""

    step: Step
    llm: LLM | None = None
    """The step's model, if its config names none."""
    checkpointer: Checkpointer | None = None
    """Where the agent that gets the step keeps its state."""
    tools: Tools = Field(default_factory=dict)
    """Tools by name, for the step."""


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a file that holds an agent."""
    document = AgentFile.model_json_schema()
    models = document["$defs"]
    for options in (LLMStepOptions, ReactStepOptions):
        models[options.__name__]["properties"] |= models[LLMConfig.__name__]["properties"]
    models["Expansion"] = {
        "type": "string",
        "pattern": r"\$\{[^}]+\}",
        "description": "A value from the environment: `${NAME}` or `${NAME:-default}`.",
    }
    return {"$schema": DRAFT, **_with_expansion(document)}


def _with_expansion(schema: Any) -> Any:
    """The schema, with `${NAME}` allowed where a number or a truth value is wanted."""
    if isinstance(schema, list):
        return [_with_expansion(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("integer", "number", "boolean"):
        outside = {key: schema[key] for key in ("title", "description", "default") if key in schema}
        inside = {key: value for key, value in schema.items() if key not in outside}
        return {**outside, "anyOf": [inside, {"$ref": "#/$defs/Expansion"}]}
    return {key: _with_expansion(value) for key, value in schema.items()}
