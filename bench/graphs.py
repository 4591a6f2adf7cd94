"""The graphs that are run: a chat, an agent with tools, and a wide state of which little changes."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

from bench.candidates import Saver
from bench.texts import text

ANSWERS_AFTER = 0.3
"""Seconds that the agent's model takes for an answer."""
CHANNELS = 20
CHANNEL_BYTES = 1000


class Chatting:
    """A conversation as its caller sees it: with a saver it lies there, without one the caller keeps it."""

    def __init__(self, graph: Any, saver: Saver | None, thread_id: str) -> None:
        self._graph = graph
        self.config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
        self._saver = saver
        self._kept: list[BaseMessage] = []
        self._thread_id = thread_id

    def says(self, number: int) -> HumanMessage:
        """What the user says in a turn; made beforehand, so that its making is not measured."""
        return HumanMessage(text(self._thread_id, 2 * number))

    async def hears(self, said: HumanMessage) -> None:
        """The turn: the answer is there, and all of it is kept, when this returns.

        Raises:
            AssertionError: If the answer is missing.
        """
        if self._saver is None:
            result = await self._graph.ainvoke({"messages": [*self._kept, said]})
            self._kept = result["messages"]
        else:
            result = await self._graph.ainvoke({"messages": [said]}, self.config, durability="sync")
        assert isinstance(result["messages"][-1], AIMessage), result["messages"][-1]

    def on(self, graph: Any, saver: Saver) -> Chatting:
        """The same conversation through another saver."""
        return Chatting(graph, saver, self._thread_id)

    async def turn(self, number: int) -> None:
        """Both."""
        await self.hears(self.says(number))


def chat_graph(saver: Saver | None) -> Any:
    """Answers each message with one of the same length."""

    async def reply(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        thread_id = config.get("configurable", {}).get("thread_id", "")
        return {"messages": [AIMessage(text(thread_id, len(state["messages"])))]}

    graph = StateGraph(MessagesState)
    graph.add_node("reply", reply)
    graph.add_edge(START, "reply")
    graph.add_edge("reply", END)
    return graph.compile(checkpointer=saver)


@tool
async def weather(place: str) -> str:
    """The weather in a place."""
    return text(place, 0, 200)


@tool
async def calendar(day: str) -> str:
    """What is planned on a day."""
    return text(day, 0, 200)


class UnhurriedModel(BaseChatModel):
    """A model that takes a while, asks for each of the two tools once, and then answers."""

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        await asyncio.sleep(ANSWERS_AFTER)
        seen = 0
        for message in reversed(messages):
            if isinstance(message, HumanMessage):
                break
            seen += isinstance(message, ToolMessage)
        id = f"call-{len(messages)}"
        match seen:
            case 0:
                calls = [{"name": "weather", "args": {"place": "Lisbon"}, "id": id}]
            case 1:
                calls = [{"name": "calendar", "args": {"day": "Monday"}, "id": id}]
            case _:
                calls = []
        answer = AIMessage("" if calls else text("answer", len(messages)), tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("the benchmarks call the model asynchronously")

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self

    @property
    def _llm_type(self) -> str:
        return "unhurried"


def agent_graph(saver: Saver | None) -> Any:
    """LangChain's ReAct agent with two tools, each used once a turn: three calls of the model."""
    return create_agent(UnhurriedModel(), [weather, calendar], checkpointer=saver)


def wide_graph(saver: Saver | None, steps: int) -> Any:
    """A state of 20 channels of 1 KB; each step changes the first of them."""
    names = [f"channel_{number}" for number in range(CHANNELS)]
    state: Any = TypedDict("Wide", dict.fromkeys(names, str))  # type: ignore[misc]

    async def change(state: dict[str, str]) -> dict[str, str]:
        done = int(state["channel_0"].partition(" ")[0]) + 1
        return {"channel_0": f"{done} {text('changed', done, CHANNEL_BYTES)}"}

    def again(state: dict[str, str]) -> str:
        return END if int(state["channel_0"].partition(" ")[0]) >= steps else "change"

    graph = StateGraph(state)
    graph.add_node("change", change)
    graph.add_edge(START, "change")
    graph.add_conditional_edges("change", again, ["change", END])
    return graph.compile(checkpointer=saver)


def wide_input() -> dict[str, str]:
    """The first state of `wide_graph`."""
    values = {f"channel_{number}": text("wide", number, CHANNEL_BYTES) for number in range(CHANNELS)}
    return {**values, "channel_0": "0 " + values["channel_0"]}
