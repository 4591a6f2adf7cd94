"""What chat models of ours share: binding tools, counting words, and a finished message as a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

ARGUMENT_PIECE = 8
"""Characters of a tool call's JSON in one chunk."""


class ToolBindingModel(BaseChatModel):
    """A chat model that is asked with `tools` and `tool_choice` in OpenAI's form."""

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools that it may call, or with a `tool_choice` has to.

        Args:
            tools: Functions, LangChain tools, pydantic models or JSON schemas.
            tool_choice: `auto`, `none`, `any` or `required`, or the name of a tool.
            **kwargs: Further arguments of each request.
        """
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)


def forced_tools(tools: Sequence[dict[str, Any]], tool_choice: Any) -> list[dict[str, Any]]:
    """The tools of which `tool_choice` demands a call; none where the model is free to answer.

    Raises:
        ValueError: If it names a tool that is not bound.
    """
    match tool_choice:
        case None | False | "auto" | "none":
            return []
        case True | "any" | "required":
            return list(tools)
        case {"function": {"name": str(name)}} | {"name": str(name)} | str(name):
            if chosen := [tool for tool in tools if tool["function"]["name"] == name]:
                return chosen
            names = ", ".join(tool["function"]["name"] for tool in tools) or "none"
            raise ValueError(f"tool_choice names {name!r}, which is not bound; bound: {names}")
        case _:
            raise ValueError(f"tool_choice {tool_choice!r} is neither auto, none, any, required nor a tool's name")


def words(messages: Sequence[BaseMessage]) -> int:
    """How many words the messages hold, arguments of tool calls included."""
    count = 0
    for message in messages:
        count += len(message.text.split())
        if isinstance(message, AIMessage):
            count += sum(len(json.dumps(call["args"]).split()) for call in message.tool_calls)
    return count


def usage(asked: Sequence[BaseMessage], answer: AIMessage) -> UsageMetadata:
    """Words as tokens."""
    read, said = words(asked), words([answer])
    return UsageMetadata(input_tokens=read, output_tokens=said, total_tokens=read + said)


def result(message: AIMessage) -> ChatResult:
    """A message as what `_generate` returns."""
    return ChatResult(generations=[ChatGeneration(message=message)])


def chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """A finished message as a provider would stream it: word by word, then each tool call in pieces of JSON.

    Added up, the chunks are the message again. The last one carries usage and response metadata.
    """
    content = message.content
    for part in re.findall(r"\s*\S+|\s+", content) if isinstance(content, str) else [content]:
        yield _chunk(message, content=part)
    for piece in _call_chunks(message):
        yield _chunk(message, content="", tool_call_chunks=[piece])
    yield _chunk(
        message,
        content="",
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )


def _chunk(message: AIMessage, **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(id=message.id, name=message.name, **fields))


def _call_chunks(message: AIMessage) -> Iterator[ToolCallChunk]:
    calls = [(call["name"], json.dumps(call["args"]), call["id"]) for call in message.tool_calls]
    calls += [(call["name"] or "", call["args"] or "", call["id"]) for call in message.invalid_tool_calls]
    for index, (name, arguments, id) in enumerate(calls):
        yield tool_call_chunk(name=name, args="", id=id, index=index)
        for start in range(0, len(arguments), ARGUMENT_PIECE):
            yield tool_call_chunk(args=arguments[start : start + ARGUMENT_PIECE], index=index)
