"""A small chat model that needs no key, no network and no weights, and says that it is a demo."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import Field

from petal.core.config.agent import LLMConfig
from petal.core.models.replies import reply
from petal.core.models.settings import given, own_fields, require_known
from petal.core.models.streaming import ToolBindingModel, chunks, forced_tools, result, usage


def opened(model: str, config: LLMConfig) -> DemoChatModel:
    """The demo model that a configuration names."""
    settings = given(config)
    require_known("demo", settings, own_fields(DemoChatModel) - {"model_name"})
    return DemoChatModel(model_name=model or "demo", **settings)


class DemoChatModel(ToolBindingModel):
    """Answers by rules: the same history always gets the same answer.

    It remembers what the conversation told it ("my name is Ada" … "what is my name?"), knows what was said last,
    calls a tool that the text names ("add 2 and 3", `search {"query": "cats"}`), reports what tools answered, and
    fills the form of a structured answer. To everything else it says what it was told, marked "(demo model)".
    System prompts are ignored. A token is a word.
    """

    model_name: str = "demo"
    """Named in `response_metadata`."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Words of an answer at most."""

    @property
    def _llm_type(self) -> str:
        return "petal-demo"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "max_tokens": self.max_tokens}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return result(self._answer(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return result(self._answer(messages, stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from chunks(self._answer(messages, stop, **kwargs))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in chunks(self._answer(messages, stop, **kwargs)):
            yield chunk

    def _answer(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        *,
        tools: Any = None,
        tool_choice: Any = None,
        **_: Any,
    ) -> AIMessage:
        bound = [] if tool_choice == "none" else tools or []
        answer = reply(messages, bound, forced_tools(bound, tool_choice))
        finish = "tool_calls" if answer.tool_calls else "stop"
        text = _until(answer.text, stop or [])
        if self.max_tokens is not None and len(text.split()) > self.max_tokens:
            text, finish = _first_words(text, self.max_tokens), "length"
        answer = answer.model_copy(update={"content": text})
        return answer.model_copy(
            update={
                "usage_metadata": usage(messages, answer),
                "response_metadata": {"model_name": self.model_name, "finish_reason": finish},
            }
        )


def _until(text: str, stop: list[str]) -> str:
    return text[: min((at for mark in stop if (at := text.find(mark)) >= 0), default=len(text))]


def _first_words(text: str, count: int) -> str:
    return "".join(re.findall(r"\s*\S+", text)[:count])
