"""Steps that reason and act in a loop: LangChain's agent as a graph inside the graph."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, NotRequired

from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import AgentMiddleware, ModelCallLimitMiddleware, ModelRequest, ModelResponse
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt.tool_node import ToolCallRequest

from petal.core.config.agent import StepConfig
from petal.core.config.steps import ReactOptions
from petal.core.effects.calls import RecordedCalls
from petal.core.models.source import ModelSource
from petal.core.steps.dangling import Conversation, Mender
from petal.core.steps.llm import Question, StructuredOutput
from petal.core.steps.registry import Node, StepContext, options_of
from petal.core.steps.tool import scratchpad
from petal.types.state import values_of


def nodes(step: StepConfig, context: StepContext) -> Node:
    """The node that runs the loop on the state's conversation."""
    options = options_of(step, ReactOptions)
    question = Question.parse(options, step.name, context)
    output = StructuredOutput.parse(options, step.name, context)
    if options.scratchpad_key is not None:
        context.require_key(options.scratchpad_key, step.name, "the scratchpad")
    toolbox = context.toolbox(options.tools, step.name)
    source = context.model(options.llm, step.name)
    mender = Mender(step.name, options, toolbox, context)

    @cache
    def loop() -> CompiledStateGraph[Any, Any, Any, Any]:
        middleware: list[AgentMiddleware[Any, Any, Any]] = [
            ModelCallLimitMiddleware(run_limit=options.max_iterations, exit_behavior="end"),
            _StepModel(source),
            _Recorded(RecordedCalls(options.on_unknown)),
        ]
        form = ToolStrategy(output.model) if output else None
        return create_agent(_Unbound(), toolbox.tools, middleware=middleware, response_format=form, name=step.name)

    if toolbox.is_loaded:
        loop()  # a function that cannot be a tool is said when the agent is built

    def begin(state: Any, conversation: Conversation) -> tuple[dict[str, Any], int]:
        asked = question.ask(state, conversation)
        return {"messages": asked.messages, "instructions": asked.system}, len(asked.messages) - len(asked.new)

    def end(state: Any, conversation: Conversation, known: int, result: dict[str, Any]) -> Any:
        added = result["messages"][known:]
        update: dict[str, Any] = {"messages": added}
        if output and (answer := result.get("structured_response")) is not None:
            update |= output.values(answer)
        if options.scratchpad_key is not None:
            before = {**values_of(state), **conversation.values}.get(options.scratchpad_key) or ""
            update[options.scratchpad_key] = before + scratchpad(added, added)
        return conversation.update(update)

    def run(state: Any, config: RunnableConfig) -> Any:
        conversation = mender.mend(state, config)
        begun, known = begin(state, conversation)
        return end(state, conversation, known, loop().invoke(begun, config))

    async def arun(state: Any, config: RunnableConfig) -> Any:
        await toolbox.aload()
        conversation = await mender.amend(state, config)
        begun, known = begin(state, conversation)
        return end(state, conversation, known, await loop().ainvoke(begun, config))

    return RunnableLambda(run, afunc=arun, name=step.name)


class _LoopState(AgentState[Any]):
    """The loop's state: the conversation, and the system prompt as the outer state filled it."""

    instructions: NotRequired[str | None]


class _StepModel(AgentMiddleware[Any, Any, Any]):
    """Puts the step's model and its filled system prompt into each request."""

    state_schema = _LoopState

    def __init__(self, source: ModelSource) -> None:
        super().__init__()
        self._source = source

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        return handler(self._filled(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        return await handler(self._filled(request))

    def _filled(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        instructions: Any = request.state.get("instructions")
        return request.override(
            model=self._source.get(), system_message=SystemMessage(instructions) if instructions else None
        )


class _Recorded(AgentMiddleware[Any, Any, Any]):
    """Records each call of a tool."""

    def __init__(self, calls: RecordedCalls) -> None:
        super().__init__()
        self._calls = calls

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]) -> Any:
        return self._calls.wrap(request, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        return await self._calls.awrap(request, handler)


class _Unbound(BaseChatModel):
    """Stands where `create_agent` wants a model, before the step's own is built."""

    @property
    def _llm_type(self) -> str:
        return "unbound"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise AssertionError("each request carries the step's own model")
