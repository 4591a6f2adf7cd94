"""Every snippet and every YAML document of the specification runs as it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docs_blocks as docs
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph

from petal import errors
from petal.core.builders.agent import AgentBuilder
from petal.core.builders.director import AgentBuilderDirector
from petal.core.config.agent import StepConfig
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.core.yaml.handlers.checkpointer import CheckpointerYAMLHandler
from petal.types.state import DefaultState

HERE = Path(__file__).parent


SPECIFICATION = {block.heading: block for block in docs.blocks(HERE / "specification.md")}


def nothing(state: DefaultState) -> DefaultState:
    return {}


async def run(name: str, **names: Any) -> dict[str, Any]:
    space: dict[str, Any] = await docs.execute(SPECIFICATION[name], names)
    return space


def test_the_blocks_are_all_accounted_for() -> None:
    tested = Path(__file__).read_text()
    for name in SPECIFICATION:
        assert f'"{name}"' in tested


async def test_the_configuration_is_the_specified_model() -> None:
    specified = (await run("config-model"))["CheckpointerConfig"]
    for field, told in specified.model_fields.items():
        assert CheckpointerConfig.model_fields[field].default == told.default
    assert set(CheckpointerConfig.model_fields) == set(specified.model_fields)
    for given in ({}, {"type": "memory"}, {"type": "sqlite", "config": {"db_file": "x.db"}}, {"enabled": False}):
        assert CheckpointerConfig(**given).model_dump() == specified(**given).model_dump()
    with pytest.raises(ValueError, match="Input should be 'memory', 'sqlite' or 'postgres'"):
        CheckpointerConfig(type="redis")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_checkpointer_lacks_what_the_specification_says(kind: Any) -> None:
    specified = (await run("create-checkpointer", CheckpointerConfig=CheckpointerConfig))["_create_checkpointer"]
    config = CheckpointerConfig(type=kind)
    with pytest.raises(ValueError, match="requires configuration") as theirs:
        specified(None, config)
    with pytest.raises(ValueError, match="requires configuration") as ours:
        AgentBuilderDirector()._create_checkpointer(config)
    assert str(ours.value) == str(theirs.value)


def test_the_director_makes_a_saver_of_each_kind(storage: CheckpointerConfig) -> None:
    saver = AgentBuilderDirector()._create_checkpointer(storage)
    assert isinstance(saver, BaseCheckpointSaver)
    saver.close()  # type: ignore[attr-defined]


async def test_the_specified_methods_fit_our_classes(storage: CheckpointerConfig) -> None:
    """The specification's bodies of `with_checkpointer` do on our objects what ours do."""
    specified_factory = (await run("factory", CheckpointerConfig=CheckpointerConfig))["AgentFactory"]
    specified_builder = (await run("builder", CheckpointerConfig=CheckpointerConfig))["AgentBuilder"]

    factory = AgentFactory(DefaultState).add(nothing)
    assert specified_factory.with_checkpointer(factory, storage) is factory
    assert factory.config == AgentFactory(DefaultState).add(nothing).with_checkpointer(storage).config

    step = StepConfig(type="custom", name="nothing", config={"function": nothing})
    builder = AgentBuilder(DefaultState).with_step(step)
    assert specified_builder.with_checkpointer(builder, storage) is builder
    assert builder.config == factory.config
    with pytest.raises(ValueError, match="Invalid checkpointer configuration: with_checkpointer takes"):
        specified_builder.with_checkpointer(builder, 7)


async def test_the_handler_does_what_the_specified_one_does() -> None:
    specified = await run("yaml-handler", CheckpointerConfig=CheckpointerConfig, Dict=dict, Any=Any)
    theirs, ours = specified["CheckpointerYAMLHandler"](), CheckpointerYAMLHandler()
    good = {"type": "sqlite", "enabled": True, "config": {"db_file": "/tmp/checkpoints.db"}}
    assert ours.parse_checkpointer_config(good) == theirs.parse_checkpointer_config(good)
    for given in (good, {}, {"type": "redis"}, {"typ": "memory"}, {"type": "sqlite", "config": {"db": "x"}}):
        assert ours.validate_checkpointer_config(given) is theirs.validate_checkpointer_config(given)


async def test_the_errors_are_the_specified_tree() -> None:
    specified = await run("errors")
    for name, theirs in specified.items():
        if name.endswith("Error"):
            ours = getattr(errors, name)
            assert ours.__mro__[0].__name__ == theirs.__name__
            assert {base.__name__ for base in theirs.__mro__} <= {base.__name__ for base in ours.__mro__}


async def test_thread_ids_go_into_the_config(storage: CheckpointerConfig) -> None:
    factory = AgentFactory(DefaultState).with_chat(llm="demo:").with_checkpointer(storage)
    async with factory.build() as agent:
        left = await run("thread-ids", graph=agent.graph, state={"messages": [("user", "Hello")]})
        assert left["result"]["messages"][0].text == "Hello"


async def test_the_basic_snippet_remembers(openai: Any) -> None:
    openai.reply("Hi there.", "You said: Hello")
    left = await run("basic")
    async with left["agent"]:
        said = [message.text for message in left["result"]["messages"]]
        assert said == ["Hello", "Hi there.", "What did I just say?", "You said: Hello"]
        assert left["current_state"].values["messages"] == left["result"]["messages"]
        assert len(left["history"]) == 6
    sent = openai.requests[-1].body["messages"]
    assert [message["content"] for message in sent] == ["Hello", "Hi there.", "What did I just say?"]


async def test_the_sqlite_snippet_keeps_its_file(openai: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippet = SPECIFICATION["sqlite"]
    basic = SPECIFICATION["basic"].code.split("\n\n")[0]
    names = await docs.execute(docs.Block(snippet.file, 1, "", "python", basic), {})
    left = await docs.execute(snippet, names)
    assert not (tmp_path / "data").exists()
    async with left["agent"] as agent:
        await agent.ainvoke({"messages": [{"role": "user", "content": "Hello"}]}, thread_id="user-123")
    assert (tmp_path / "data" / "checkpoints.db").stat().st_size > 0


async def test_the_postgres_snippet_builds_and_opens_nothing(openai: Any, postgres_url: str) -> None:
    names = {
        "AgentFactory": AgentFactory,
        "CheckpointerConfig": CheckpointerConfig,
        "DefaultState": DefaultState,
    }
    left = await run("postgres", **names)
    assert left["agent"].config.checkpointer.where == "postgresql://user:***@localhost/db"
    snippet = SPECIFICATION["postgres"]
    here = snippet.code.replace("postgresql://user:pass@localhost/db", postgres_url)
    left = await docs.execute(docs.Block(snippet.file, snippet.line, "", "python", here), names)
    async with left["agent"] as agent:
        await agent.ainvoke({"messages": [{"role": "user", "content": "Hello"}]}, thread_id="user-123")
        assert len((await agent.thread("user-123").astate()).values["messages"]) == 2


@pytest.mark.parametrize("name", ["yaml-conversational", "yaml-persistent"])
async def test_the_yaml_documents_run(name: str, openai: Any, tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(SPECIFICATION[name].code)
    openai.reply("Hi Ada.", "Your name is Ada.")
    async with AgentFactory.from_yaml(file).build() as agent:
        await agent.ainvoke({"input": "My name is Ada."}, thread_id="user-123")
    async with AgentFactory.from_yaml(file).build() as agent:
        result = await agent.ainvoke({"input": "What is my name?"}, thread_id="user-123")
    assert [message.text for message in result["messages"]] == [
        "You are a helpful assistant. My name is Ada.",
        "Hi Ada.",
        "You are a helpful assistant. What is my name?",
        "Your name is Ada.",
    ]
    assert (tmp_path / "data" / "checkpoints.db").exists()


async def test_langgraphs_own_example_is_of_another_langgraph() -> None:
    """The one block that cannot run: LangGraph's `StateGraph` has no `set_checkpointer`, which it calls."""
    assert "graph.set_checkpointer(checkpointer)" in SPECIFICATION["langgraph-example"].code
    assert not hasattr(StateGraph, "set_checkpointer")
