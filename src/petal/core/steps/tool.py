"""Steps that run the tools which the last message asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.prebuilt import ToolNode

from petal.core.config.agent import StepConfig
from petal.core.config.steps import ToolOptions
from petal.core.steps.registry import Node, StepContext, options_of
from petal.tools.toolbox import Toolbox
from petal.types.state import values_of


def nodes(step: StepConfig, context: StepContext) -> Node:
    """The node that runs the tool calls of the last message; without any it changes nothing."""
    options = options_of(step, ToolOptions)
    return tool_node(context.toolbox(options.tools, step.name), step.name, context, options.scratchpad_key)


def tool_node(toolbox: Toolbox, name: str, context: StepContext, scratchpad_key: str | None) -> Node:
    """A node that answers the last message's tool calls, each in a `ToolMessage` of its own."""
    if scratchpad_key is not None:
        context.require_key(scratchpad_key, name, "the scratchpad")
    inner = cache(lambda: ToolNode([tool for tool in toolbox.tools if not isinstance(tool, dict)], name=name))
    if toolbox.is_loaded:
        inner()  # a function that cannot be a tool is said when the agent is built

    def update(state: Any, answers: Any) -> Any:
        if scratchpad_key is None or not isinstance(answers, dict):
            return answers
        before = values_of(state).get(scratchpad_key) or ""
        return {**answers, scratchpad_key: before + scratchpad(messages_of(state), answers["messages"])}

    def call(state: Any, config: RunnableConfig) -> Any:
        return update(state, inner().invoke(state, config)) if wants_tools(state) else {}

    async def acall(state: Any, config: RunnableConfig) -> Any:
        if not wants_tools(state):
            return {}
        await toolbox.aload()
        return update(state, await inner().ainvoke(state, config))

    return RunnableLambda(call, afunc=acall, name=name)


def messages_of(state: Any) -> list[BaseMessage]:
    """The state's messages."""
    return list(values_of(state).get("messages") or ())


def wants_tools(state: Any) -> bool:
    """Whether the last message asks for tools."""
    messages = messages_of(state)
    return bool(messages) and isinstance(messages[-1], AIMessage) and bool(messages[-1].tool_calls)


def scratchpad(messages: Sequence[BaseMessage], results: Sequence[BaseMessage]) -> str:
    """The calls that `results` answer, as text: one line for the call, one for what came back."""
    calls = {call["id"]: call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls}
    lines = []
    for result in results:
        if isinstance(result, ToolMessage) and (call := calls.get(result.tool_call_id)):
            lines += [f"Action: {call['name']}({json.dumps(call['args'], default=str)})", f"Observation: {result.text}"]
    return "".join(f"{line}\n" for line in lines)
