"""One agent serves many event loops: each gets a model whose connections work in it, and which is closed with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from petal.core.config.agent import LLMConfig
from petal.core.factory import AgentFactory
from petal.core.models.source import ModelSource
from petal.errors import ModelKeyMissingError
from petal.testing import ScriptedChatModel
from petal.types.state import DefaultState


def test_loops_one_after_the_other_and_the_sync_face_share_an_agent(openai: Any) -> None:
    openai.reply("one", "two", "three", "four")
    agent = AgentFactory(DefaultState).with_chat(llm="openai:gpt-4o").build()

    async def turn() -> str:
        result = await agent.ainvoke("Hello")
        await agent.aclose()
        return str(result["messages"][-1].text)

    assert [asyncio.run(turn()), asyncio.run(turn())] == ["one", "two"]
    assert agent.invoke("Hello")["messages"][-1].text == "three"
    assert asyncio.run(turn()) == "four"


async def test_a_loop_keeps_its_model_until_it_closes_it(openai: Any) -> None:
    source = ModelSource(LLMConfig(provider="openai", model="gpt-4o"))
    model: Any = source.get()
    assert source.get() is model
    assert await asyncio.to_thread(source.get) is not model
    assert await asyncio.to_thread(source.get, asyncio.get_running_loop()) is model
    await source.aclose()
    assert model.http_async_client.is_closed
    assert model.http_client.is_closed
    assert source.get() is not model
    await source.aclose()


async def test_clients_that_were_passed_in_stay_open(openai: Any) -> None:
    from openai import DefaultAsyncHttpxClient

    client = DefaultAsyncHttpxClient()
    source = ModelSource(LLMConfig(provider="openai", model="gpt-4o", http_async_client=client))
    source.get()
    await source.aclose()
    assert not client.is_closed
    await client.aclose()


async def test_a_ready_model_is_used_as_it_is() -> None:
    model = ScriptedChatModel(replies=[])
    source = ModelSource(model)
    assert source.get() is model
    await source.aclose()


async def test_a_missing_key_is_said_before_anything_is_saved(tmp_path: Any) -> None:
    factory = AgentFactory(DefaultState).with_chat(llm="openai:gpt-4o")
    agent = factory.with_checkpointer(f"sqlite:///{tmp_path}/chat.db").build()
    with pytest.raises(ModelKeyMissingError, match="OPENAI_API_KEY"):
        await agent.ainvoke("Hello", thread_id="t")
    with pytest.raises(ModelKeyMissingError):
        await agent
    assert not (tmp_path / "chat.db").exists()
    await agent.aclose()
