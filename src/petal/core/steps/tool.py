"""Steps that run the tools which the last message asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.prebuilt import ToolNode

from petal.core.config.agent import StepConfig
from petal.core.config.steps import ToolOptions
from petal.core.effects.calls import RecordedCalls
from petal.core.effects.recorder import OnUnknown
from petal.core.steps.registry import Node, StepContext, options_of
from petal.tools.toolbox import Toolbox
from petal.types.state import values_of


def nodes(step: StepConfig, context: StepContext) -> Node:
    """The node that runs the tool calls of the last message; without any it changes nothing."""
    options = options_of(step, ToolOptions)
    toolbox = context.toolbox(options.tools, step.name)
    return tool_node(toolbox, step.name, context, options.scratchpad_key, options.on_unknown)


def tool_node(
    toolbox: Toolbox, name: str, context: StepContext, scratchpad_key: str | None, on_unknown: OnUnknown = "run"
) -> Node:
    """A node that answers the last message's tool calls, each in a `ToolMessage` of its own, and records them."""
    if scratchpad_key is not None:
        context.require_key(scratchpad_key, name, "the scratchpad")
    recorded = RecordedCalls(on_unknown)

    @cache
    def inner() -> ToolNode:
        tools = [tool for tool in toolbox.tools if not isinstance(tool, dict)]
        return ToolNode(tools, name=name, wrap_tool_call=recorded.wrap, awrap_tool_call=recorded.awrap)

    if toolbox.is_loaded:
        inner()  # a function that cannot be a tool is said when the agent is built

    def update(state: Any, answers: Any) -> Any:
        if scratchpad_key is None or not isinstance(answers, dict):
            return answers
        before = values_of(state).get(scratchpad_key) or ""
        return {**answers, scratchpad_key: before + scratchpad(messages_of(state), answers["messages"])}

    def call(state: Any, config: RunnableConfig) -> Any:
        if not wants_tools(state):
            return {}
        recorded.prepare(calls_of(state))
        return update(state, inner().invoke(state, config))

    async def acall(state: Any, config: RunnableConfig) -> Any:
        if not wants_tools(state):
            return {}
        await toolbox.aload()
        await recorded.aprepare(calls_of(state))
        return update(state, await inner().ainvoke(state, config))

    return RunnableLambda(call, afunc=acall, name=name)


def messages_of(state: Any) -> list[BaseMessage]:
    """The state's messages."""
    return list(values_of(state).get("messages") or ())


def wants_tools(state: Any) -> bool:
    """Whether the last message asks for tools."""
    return bool(calls_of(state))


def calls_of(state: Any) -> list[ToolCall]:
    """The calls that the last message asks for."""
    messages = messages_of(state)
    return messages[-1].tool_calls if messages and isinstance(messages[-1], AIMessage) else []


def scratchpad(messages: Sequence[BaseMessage], results: Sequence[BaseMessage]) -> str:
    """The calls that `results` answer, as text: one line for the call, one for what came back."""
    calls = {call["id"]: call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls}
    lines = []
    for result in results:
        if isinstance(result, ToolMessage) and (call := calls.get(result.tool_call_id)):
            lines += [f"Action: {call['name']}({json.dumps(call['args'], default=str)})", f"Observation: {result.text}"]
    return "".join(f"{line}\n" for line in lines)
