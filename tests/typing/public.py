"""The types of the public face, pinned: mypy reads this file, nothing runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any, assert_type

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Interrupt, StateSnapshot

from petal import (
    Agent,
    AgentBuilder,
    AgentConfig,
    AgentFactory,
    CheckpointerConfig,
    DefaultState,
    StepConfig,
    Thread,
    astep,
    healthy,
    idempotency_key,
    open_checkpointer,
    step,
)
from petal.core.builders.director import AgentBuilderDirector
from petal.core.yaml.handlers.checkpointer import CheckpointerYAMLHandler
from petal.tools.ledger import ToolCallRecord


def building() -> None:
    config = CheckpointerConfig(type="sqlite", config={"db_file": "x.db"})
    factory = AgentFactory(DefaultState).with_chat(llm="demo:").with_checkpointer(config)
    assert_type(factory, AgentFactory)
    assert_type(factory.with_condition(lambda state: "x", {"x": "END"}), AgentFactory)
    assert_type(factory.with_retry(3).with_timeout(1.5).with_approval(), AgentFactory)
    assert_type(factory.with_dangling_calls("ask"), AgentFactory)
    assert_type(healthy([]), list[BaseMessage])
    assert_type(factory.config, AgentConfig)
    assert_type(factory.build(), Agent)
    assert_type(factory.diagram(), str)
    assert_type(AgentFactory.from_yaml("agent.yaml"), AgentFactory)
    builder = AgentBuilder(DefaultState).with_step(StepConfig(type="llm", name="chat"))
    assert_type(builder.with_checkpointer("memory://"), AgentBuilder)
    assert_type(builder.build(), Agent)
    assert_type(AgentBuilderDirector()._create_checkpointer(config), BaseCheckpointSaver[Any])
    assert_type(CheckpointerYAMLHandler().parse_checkpointer_config({}), CheckpointerConfig)
    assert_type(CheckpointerYAMLHandler().validate_checkpointer_config({}), bool)
    saver: BaseCheckpointSaver[Any] = open_checkpointer("memory://")
    saver.get_next_version(None, None)


async def running(agent: Agent) -> None:
    assert_type(agent.graph, CompiledStateGraph[Any, Any, Any, Any])
    assert_type(await agent, Agent)
    async with agent as same:
        assert_type(same, Agent)
    with agent as same:
        assert_type(same, Agent)
    assert_type(agent.astream("x", thread_id="t"), AsyncGenerator[Any, None])
    assert_type(agent.stream("x", thread_id="t"), Iterator[Any])
    assert_type(agent.batch(["x"], thread_ids=["t"]), list[Any])
    thread = agent.thread("t")
    assert_type(thread, Thread)
    assert_type(thread.state(), StateSnapshot)
    assert_type(await thread.astate(), StateSnapshot)
    assert_type(thread.history(limit=1), list[StateSnapshot])
    assert_type(thread.interrupts(), tuple[Interrupt, ...])
    assert_type(thread.stream_resume("yes", "id"), Iterator[Any])
    assert_type(thread.astream_resume(answers={"id": "yes"}), AsyncGenerator[Any, None])
    assert_type(agent.stream("x", thread_id="t", on_pending="abandon"), Iterator[Any])
    assert_type(thread.update({}, as_node="x"), RunnableConfig)
    assert_type(thread.fork(to="x"), Thread)
    assert_type(await thread.acopy("x"), Thread)
    assert_type(thread.rewind(turns=1), StateSnapshot)
    assert_type(thread.tool_calls(), list[ToolCallRecord])
    assert_type(step("length", len, "text", on_unknown="ask"), int)
    assert_type(await step("state", thread.astate), StateSnapshot)
    assert_type(await astep("length", len, "text"), Any)
    assert_type(idempotency_key(), str)
