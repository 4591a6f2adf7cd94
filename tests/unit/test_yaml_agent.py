"""Agents and steps from YAML are those that code builds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool, tool
from langgraph.graph import END
from pydantic import BaseModel
from typing_extensions import TypedDict

from petal.core.config.agent import AgentConfig, ApprovalConfig, ConditionConfig, LLMConfig, RetryConfig, StepConfig
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.core.steps.registry import StepRegistry
from petal.core.yaml.loader import load_agent, load_step, parse_agent, parse_step
from petal.errors import AgentConfigurationError
from petal.types.state import ConversationState, DefaultState

PLANNED = """\
# Example agent configuration with checkpointer
name: "conversational_agent"
state_type: "ConversationState"
checkpointer:
  type: "sqlite"
  enabled: true
  config:
    db_file: "./data/checkpoints.db"

steps:
  - type: "llm"
    name: "chat"
    config:
      provider: "openai"
      model: "gpt-4"
      prompt_template: "You are a helpful assistant. {input}"
"""

EXAMPLE = """\
# configs/agent_with_checkpointer.yaml
name: "persistent_agent"
state_type: "DefaultState"
checkpointer:
  type: "sqlite"
  enabled: true
  config:
    db_file: "./data/checkpoints.db"

steps:
  - type: "llm"
    name: "chat"
    config:
      provider: "openai"
      model: "gpt-4"
      prompt_template: "You are a helpful assistant. {input}"
"""

EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"


class Orders(TypedDict):
    order: str


class Answer(BaseModel):
    text: str


class Late(Exception):
    pass


def look_up(state: Orders) -> dict[str, Any]:
    return {"order": state["order"]}


def choose(state: Orders) -> str:
    return "yes"


def search(query: str) -> str:
    """Search the shop."""
    return query


async def asearch(query: str) -> str:
    """Search the shop."""
    return query


@tool
def weather(city: str) -> str:
    """The weather."""
    return city


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This module's objects can be named in YAML as `shop:…`; modules that a test loaded are unloaded."""
    before = set(sys.modules)
    monkeypatch.setitem(sys.modules, "shop", sys.modules[__name__])
    yield
    for name in set(sys.modules) - before - {"shop"}:
        if not name.startswith(("petal", "lang")):
            del sys.modules[name]


def agent(text: str, base: Path = Path("/srv")) -> AgentConfig:
    return parse_agent(text, base=base)


def only_step(text: str) -> StepConfig:
    return agent(f"steps:\n  - {text}").steps[0]


@pytest.mark.parametrize(
    ("text", "name", "state"),
    [(PLANNED, "conversational_agent", ConversationState), (EXAMPLE, "persistent_agent", DefaultState)],
)
def test_the_specification_loads_as_the_code_that_it_stands_for(
    tmp_path: Path, text: str, name: str, state: type
) -> None:
    (tmp_path / "agent.yaml").write_text(text)
    in_code = (
        AgentFactory(state, name=name)
        .with_chat(
            llm_config={"provider": "openai", "model": "gpt-4"},
            prompt_template="You are a helpful assistant. {input}",
        )
        .with_checkpointer(
            CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "data" / "checkpoints.db")})
        )
    )
    assert load_agent(tmp_path / "agent.yaml") == in_code.config
    assert load_agent(str(tmp_path / "agent.yaml")) == AgentFactory.from_yaml(tmp_path / "agent.yaml").config


def test_everything_that_a_file_can_say_is_what_code_can_say() -> None:
    from_yaml = agent(
        """
        name: shop
        state_type: shop:Orders
        llm: {provider: openai, model: gpt-4o, temperature: 0.5, seed: 7}
        checkpointer: sqlite:///shop.db
        tools:
          search: shop:search
        steps:
          - type: custom
            name: look_up
            config: {function: "shop:look_up", arguments: {limit: 3}}
            condition:
              function: shop:choose
              routes: {yes: ask, no: END, true: ask}
            retry: {attempts: 4, delay: 0, backoff: 3, on: [TimeoutError, "shop:Late"]}
            timeout: 1.5
          - type: llm
            name: ask
            config:
              llm: openai:gpt-4
              prompt_template: "{order}"
              system_prompt: Be brief.
              tools: [search, "shop:weather"]
              scratchpad_key: order
              structured_output: shop:Answer
              key: order
            approval: {prompt: "Ask about {order}?", on_reject: skip}
            next: react
          - type: react
            name: react
            config: {tools: [search]}
            approval: true
            retry: 3
          - type: tool
            name: tools
            config: {tools: [search]}
            approval: Run the tools?
            condition: {key: order, routes: {a: react, b: END}}
        """
    )
    in_code = (
        AgentFactory(Orders, name="shop")
        .with_llm("openai", "gpt-4o", temperature=0.5, seed=7)
        .with_checkpointer("sqlite:////srv/shop.db")
        .add(look_up, limit=3)
        .with_condition(choose, {"yes": "ask", "no": END, True: "ask"})
        .with_retry(4, delay=0, backoff=3, on=[TimeoutError, Late])
        .with_timeout(1.5)
        .with_chat("openai:gpt-4", "{order}", "Be brief.", node_name="ask")
        .with_tools([search, weather], scratchpad_key="order")
        .with_structured_output(Answer, key="order")
        .with_approval("Ask about {order}?", on_reject="skip")
        .with_next("react")
        .with_react_loop([search])
        .with_approval()
        .with_retry(3)
        .with_tool_step([search])
        .with_approval("Run the tools?")
        .with_condition("order", {"a": "react", "b": "END"})
        .config
    )
    assert from_yaml == in_code
    for found, expected in zip(from_yaml.steps, in_code.steps, strict=True):
        assert found == expected


def test_a_file_without_a_state_has_the_default_one() -> None:
    assert agent("steps: [{type: llm, name: chat}]").state_type is DefaultState
    assert agent("steps: [{type: llm, name: chat}]").name == "agent"


def test_an_inline_state_is_the_same_type_each_time() -> None:
    text = """
        name: my shop-agent
        state_schema: {messages: messages, n: {type: int, default: 0}, log: {type: list, reducer: append}}
        steps: [{type: llm, name: chat}]
    """
    config = agent(text)
    assert config == agent(text)
    assert config.state_type.__name__ == "MyShopAgentState"
    assert list(config.state_type.__annotations__) == ["messages", "n", "log"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("true", ApprovalConfig()),
        ("yes", ApprovalConfig()),
        ("'${PETAL_T:-True}'", ApprovalConfig()),
        ("false", None),
        ("no", None),
        ("'${PETAL_T:-false}'", None),
        ("null", None),
        ("'Sure?'", ApprovalConfig(prompt="Sure?")),
        ("{on_reject: fail}", ApprovalConfig(on_reject="fail")),
        ("{on_reject: END}", ApprovalConfig(on_reject=END)),
    ],
)
def test_approvals(written: str, expected: ApprovalConfig | None) -> None:
    assert only_step(f"{{type: llm, name: chat, approval: {written}}}").approval == expected


def test_numbers_and_truth_values_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETAL_N", "4")
    monkeypatch.setenv("PETAL_F", "0.5")
    monkeypatch.setenv("PETAL_B", "false")
    config = agent(
        """
        llm: {provider: openai, model: "gpt-${PETAL_N}", temperature: "${PETAL_F}", max_tokens: "${PETAL_N}"}
        checkpointer: {type: sqlite, enabled: "${PETAL_B}", config: {db_file: "${PETAL_N}.db"}}
        steps:
          - {type: react, name: a, timeout: "${PETAL_F}", retry: "${PETAL_N}", config: {max_iterations: "${PETAL_N}"}}
          - {type: llm, name: b, retry: {attempts: "${PETAL_N}", delay: "${PETAL_F}"}}
        """
    )
    assert config.llm == LLMConfig(provider="openai", model="gpt-4", temperature=0.5, max_tokens=4)
    assert config.checkpointer == CheckpointerConfig(type="sqlite", enabled=False, config={"db_file": "/srv/4.db"})
    first, second = config.steps
    assert (first.timeout, first.retry, first.config) == (0.5, RetryConfig(attempts=4), {"max_iterations": 4})
    assert second.retry == RetryConfig(attempts=4, delay=0.5)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("sqlite:///runs.db", "/srv/runs.db"),
        ("sqlite:////var/runs.db", "/var/runs.db"),
        ("'sqlite:///:memory:'", ":memory:"),
        ("{type: sqlite, config: {db_file: ../runs.db}}", "/runs.db"),
    ],
)
def test_a_database_lies_beside_the_file(written: str, expected: str) -> None:
    checkpointer = agent(f"checkpointer: {written}\nsteps: [{{type: llm, name: chat}}]").checkpointer
    assert checkpointer == CheckpointerConfig(type="sqlite", config={"db_file": expected})


def test_a_relative_file_is_seen_from_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "agent.yaml").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    checkpointer = load_agent("agents/agent.yaml").checkpointer
    assert isinstance(checkpointer, CheckpointerConfig)
    assert checkpointer.config == {"db_file": str(tmp_path / "agents" / "data" / "checkpoints.db")}


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("local:models/x.gguf", "/srv/models/x.gguf"),
        ("local:x.GGUF", "/srv/x.GGUF"),
        ("local:/opt/x.gguf", "/opt/x.gguf"),
        ("local:smollm2", "smollm2"),
        ("{provider: local, model: ./x}", "/srv/x"),
        ("openai:models/x.gguf", "models/x.gguf"),
    ],
)
def test_a_local_model_lies_beside_the_file(written: str, model: str) -> None:
    config = agent(f"llm: {written}\nsteps: [{{type: llm, name: chat, config: {{llm: {written}}}}}]")
    assert isinstance(config.llm, LLMConfig)
    assert (config.llm.model, config.steps[0].config["llm"].model) == (model, model)


def test_a_tool_may_have_a_name_and_a_description_of_its_own() -> None:
    config = agent(
        """
        tools:
          search: shop:search
          find: shop:search
          afind: {function: "shop:asearch", description: Find anything.}
          weather: shop:weather
          forecast: shop:weather
          sky: {function: "shop:weather", description: Look up.}
        steps:
          - {type: tool, name: tools, config: {tools: [search, find, afind, weather, forecast, sky, "shop:search"]}}
        """
    )
    plain, find, afind, same, forecast, sky, named = config.steps[0].config["tools"]
    assert plain is search
    assert named is search
    assert same is weather
    assert isinstance(find, StructuredTool)
    assert (find.name, find.description, find.invoke({"query": "x"})) == ("find", "Search the shop.", "x")
    assert (afind.name, afind.description, asyncio.run(afind.ainvoke({"query": "x"}))) == (
        "afind",
        "Find anything.",
        "x",
    )
    assert isinstance(forecast, BaseTool)
    assert (forecast.name, forecast.description, forecast.invoke({"city": "x"})) == ("forecast", "The weather.", "x")
    assert (sky.name, sky.description) == ("sky", "Look up.")


def test_a_kind_of_the_users_own_gets_its_config_as_it_is(tmp_path: Path) -> None:
    registry = StepRegistry({"vote": lambda step, context: look_up})
    text = "type: vote\nname: v\nconfig: {of: [a, b], with: {c: 1}}\n"
    expected = StepConfig(type="vote", name="v", config={"of": ["a", "b"], "with": {"c": 1}})
    assert parse_step(text, base=tmp_path, registry=registry).step == expected
    (tmp_path / "agent.yaml").write_text("steps: [{type: vote, name: v, config: {of: [a, b], with: {c: 1}}}]")
    assert load_agent(tmp_path / "agent.yaml", registry=registry).steps == (expected,)


def test_a_step_alone(tmp_path: Path) -> None:
    (tmp_path / "step.yaml").write_text(
        """
type: llm
name: chat
llm: local:m.gguf
tools: {find: "shop:search"}
config: {system_prompt: Hi., tools: [find]}
retry: 2
condition: {key: input, routes: {a: elsewhere}}
"""
    )
    step = load_step(tmp_path / "step.yaml").step
    assert step.config.pop("tools")[0].name == "find"
    assert step == StepConfig(
        type="llm",
        name="chat",
        config={"llm": LLMConfig(provider="local", model=str(tmp_path / "m.gguf")), "system_prompt": "Hi."},
        retry=RetryConfig(attempts=2),
        condition=ConditionConfig(key="input", routes={"a": "elsewhere"}),
    )
    own = parse_step("{type: llm, name: chat, llm: 'demo:', config: {llm: 'openai:gpt-4'}}", base=tmp_path)
    assert own.step.config == {"llm": LLMConfig(provider="openai", model="gpt-4")}


def test_a_step_alone_says_where_its_agent_keeps_state(tmp_path: Path) -> None:
    text = "type: llm\nname: {0}\nllm: 'demo:'\ncheckpointer: sqlite:///{0}.db\n"
    for name in ("ask", "tell"):
        (tmp_path / f"{name}.yaml").write_text(text.format(name))
    factory = AgentFactory(DefaultState).node_from_yaml(tmp_path / "ask.yaml")
    with factory.build() as agent:
        agent.invoke("hi", thread_id="t")
    assert (tmp_path / "ask.db").exists()
    with pytest.raises(AgentConfigurationError, match="names a checkpointer, and the agent has another one"):
        factory.node_from_yaml(tmp_path / "tell.yaml")
    assert [step.name for step in factory.build().config.steps] == ["ask"]
    (tmp_path / "tell.yaml").write_text(text.format("tell").replace("tell.db", "ask.db"))
    both = factory.node_from_yaml(tmp_path / "tell.yaml").with_checkpointer("memory://").build()
    assert (len(both.config.steps), both.config.checkpointer) == (2, CheckpointerConfig.from_url("memory://"))


def test_functions_lie_beside_the_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "my_steps.py").write_text(f"def run(state): return {name!r}\n")
        (tmp_path / name / "agent.yaml").write_text(
            "steps: [{type: custom, name: s, config: {function: 'my_steps:run'}}]"
        )
    path = list(sys.path)
    functions = [load_agent(tmp_path / name / "agent.yaml").steps[0].config["function"] for name in ("a", "b")]
    assert [function({}) for function in functions] == ["a", "b"]
    assert sys.path == path


@pytest.mark.parametrize("path", [path.relative_to(EXAMPLES) for path in sorted(EXAMPLES.rglob("*.yaml"))], ids=str)
def test_the_examples_load(path: Path) -> None:
    if path.name.endswith(".step.yaml"):
        assert load_step(EXAMPLES / path).step.name
    else:
        assert load_agent(EXAMPLES / path).steps


def test_an_example_runs() -> None:
    """It looks the order up, asks a human, pays back, and the model answers."""
    factory = AgentFactory.from_yaml(EXAMPLES / "orders" / "agent.yaml").with_checkpointer("memory://")
    with factory.build() as built:
        asked = built.invoke({"order": "A1"}, thread_id="t")
        assert (asked["amount"], asked["log"]) == (12.5, ["looked up A1"])
        assert "Refund 12.5 for order A1?" in str(asked["__interrupt__"])
        answered = built.thread("t").resume(True)
    assert answered["log"] == ["looked up A1", "refunded 12.5"]
    assert answered["messages"][0].content == "What happened to order A1?"
    assert answered["messages"][-1].type == "ai"
