"""An answer is streamed, token by token, from a real server over real HTTP: to code, and through a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessageChunk

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.types.state import DefaultState

ANSWER = "Every step is on disk before the next begins."


async def test_tokens_reach_async_code(openai: Any, storage: CheckpointerConfig) -> None:
    openai.reply(ANSWER)
    async with AgentFactory(DefaultState).with_chat(llm="openai:gpt-4o").with_checkpointer(storage).build() as agent:
        stream = agent.thread("t").astream("Hello", stream_mode="messages")
        tokens = [token.text async for token, _ in stream if isinstance(token, AIMessageChunk)]
        assert "".join(tokens) == ANSWER
        assert len(tokens) > 3
        assert (await agent.thread("t").astate()).values["messages"][-1].text == ANSWER
    assert openai.requests[-1].body["stream"] is True


def test_tokens_reach_sync_code(openai: Any) -> None:
    openai.reply(ANSWER)
    with AgentFactory(DefaultState).with_chat(llm="openai:gpt-4o").build() as agent:
        items = [token for token, _ in agent.stream("Hello", stream_mode="messages")]
    tokens = [token.text for token in items if isinstance(token, AIMessageChunk)]
    assert "".join(tokens) == ANSWER
    assert len(tokens) > 3


def test_an_answer_comes_through_a_pipe(openai: Any, tmp_path: Path) -> None:
    openai.reply(ANSWER)
    (tmp_path / "agent.yaml").write_text(
        "checkpointer: sqlite:///chat.db\nsteps:\n  - {type: llm, name: chat, config: {llm: 'openai:gpt-4o'}}\n"
    )
    petal = Path(sys.executable).with_name("petal")
    done = subprocess.run(
        [petal, "run", "agent.yaml"], input="Hello", cwd=tmp_path, env=os.environ, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ANSWER + "\n")
    assert [message["content"] for message in openai.requests[-1].body["messages"]] == ["Hello"]
