"""Each kind of step does what it was told, in code as in YAML, and refuses what cannot work when it is built."""

from __future__ import annotations

import asyncio
import dataclasses
import operator
import threading
import time
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool, tool
from langgraph.errors import NodeTimeoutError
from langgraph.graph import END, StateGraph
from langgraph.types import Send
from pydantic import BaseModel

from petal.core.config.agent import LLMConfig, StepConfig
from petal.core.factory import AgentFactory
from petal.core.steps.registry import StepContext, StepRegistry
from petal.errors import AgentConfigurationError, PromptKeyError
from petal.testing.models import ScriptedChatModel
from petal.types.state import ConversationState, DefaultState


class Trip(TypedDict, total=False):
    city: str
    days: int
    notes: str
    log: Annotated[list[str], operator.add]


@dataclasses.dataclass
class TripData:
    city: str = "Oslo"
    log: Annotated[list[str], operator.add] = dataclasses.field(default_factory=list)


class TripModel(BaseModel):
    city: str = "Oslo"
    log: Annotated[list[str], operator.add] = []


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def call_add(a: int, b: int, id: str = "call-1") -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "add", "args": {"a": a, "b": b}, "id": id}])


def sent(model: ScriptedChatModel, request: int = -1) -> list[tuple[str, str]]:
    return [(message.type, message.text) for message in model.requests[request]]


# --- chat ---------------------------------------------------------------------------------------------------------


def test_a_chat_answers_the_conversation() -> None:
    model = ScriptedChatModel(replies=["Hi."])
    result = AgentFactory(DefaultState).with_chat(llm=model).build().invoke({"messages": [("user", "Hello")]})
    assert [message.text for message in result["messages"]] == ["Hello", "Hi."]
    assert sent(model) == [("human", "Hello")]


def test_prompts_are_filled_from_the_state_and_kept_in_the_conversation() -> None:
    model = ScriptedChatModel(replies=["Three days."])
    factory = (
        AgentFactory(Trip)
        .with_chat(llm=model)
        .with_prompt("How long in {city}?")
        .with_system_prompt("{notes}. Answer in {{}}.")
    )
    result = factory.build().invoke({"city": "Oslo", "notes": "Be brief"})
    assert sent(model) == [("system", "Be brief. Answer in {}."), ("human", "How long in Oslo?")]
    assert [message.text for message in result["messages"]] == ["How long in Oslo?", "Three days."]


def test_input_is_what_a_human_has_just_said_where_it_is_not_set() -> None:
    model = ScriptedChatModel(replies=["One.", "Two.", "Three."])
    agent = AgentFactory(DefaultState).with_chat(llm=model, prompt_template="Answer: {input}").build()
    result = agent.invoke({"messages": [("user", "Count.")]})
    assert sent(model) == [("human", "Answer: Count.")]
    assert [message.text for message in result["messages"]] == ["Count.", "One."]
    result = agent.invoke({"messages": result["messages"], "input": "Go on."})
    assert sent(model)[-1] == ("human", "Answer: Go on.")
    result = agent.invoke({"messages": [*result["messages"], HumanMessage("And on.")], "input": "Go on."})
    assert sent(model)[-2:] == [("ai", "Two."), ("human", "Answer: And on.")]
    assert [m.text for m in result["messages"]][-4:] == ["Answer: Go on.", "Two.", "And on.", "Three."]


@pytest.mark.parametrize(
    ("state_type", "text", "expected"),
    [
        (DefaultState, "{input}", {"input": "Hello"}),
        (DefaultState, None, {"messages": [HumanMessage("Hello")]}),
        (ConversationState, "for {user_id}: {input}", {"input": "Hello"}),
        (Trip, None, {"messages": [HumanMessage("Hello")]}),
    ],
)
def test_text_goes_where_the_steps_look_for_it(state_type: type, text: str | None, expected: Any) -> None:
    agent = AgentFactory(state_type).with_chat(llm="demo:", prompt_template=text).build()
    assert agent.input_of("Hello") == expected
    assert agent.input_of({"city": "Oslo"}) == {"city": "Oslo"}


def test_text_is_no_input_where_the_state_has_no_place_for_it() -> None:
    with pytest.raises(AgentConfigurationError, match="pass a dict with some of city, days, notes, log"):
        AgentFactory(Trip).add(named("a")).build().invoke("Hello")


def test_a_chat_without_anything_to_answer_says_so() -> None:
    agent = AgentFactory(DefaultState).with_chat(llm=ScriptedChatModel(replies=[])).build()
    with pytest.raises(AgentConfigurationError, match="Step 'chat' has nothing to answer"):
        agent.invoke({"input": "Hello"})


def test_a_prompts_missing_key_is_named_at_build_time_and_a_missing_value_at_run_time() -> None:
    with pytest.raises(PromptKeyError, match=r"Did you mean 'city'"):
        AgentFactory(Trip).with_chat(llm="demo:", prompt_template="{citty}").build()
    agent = AgentFactory(Trip).with_chat(llm="demo:", prompt_template="{city}").build()
    with pytest.raises(PromptKeyError, match=r"names \{city\}"):
        agent.invoke({"notes": "x"})


@pytest.mark.parametrize("state_type", [Trip, TripData, TripModel])
def test_messages_are_added_to_any_kind_of_state(state_type: type) -> None:
    model = ScriptedChatModel(replies=["Three days."])

    def note(state: Any) -> dict[str, Any]:
        return {"log": ["noted"]}

    agent = AgentFactory(state_type).add(note).with_chat(llm=model, prompt_template="Days in {city}?").build()
    result = agent.invoke({"city": "Bergen"})
    assert sent(model) == [("human", "Days in Bergen?")]
    assert (result["log"], [m.text for m in result["messages"]]) == (["noted"], ["Days in Bergen?", "Three days."])


@pytest.mark.parametrize(
    "written",
    [
        {"llm": "openai:gpt-4o", "temperature": 0.1},
        {"llm": {"provider": "openai", "model": "gpt-4o", "temperature": 0.1}},
        {"llm_config": {"provider": "openai", "model": "gpt-4o"}, "temperature": 0.1},
        {"llm": LLMConfig(provider="openai", model="gpt-4o"), "temperature": 0.1},
        {"provider": "openai", "model": "gpt-4o", "temperature": 0.1},
    ],
)
def test_a_model_may_be_written_in_many_ways(written: dict[str, Any]) -> None:
    step = AgentFactory(DefaultState).with_chat(**written).config.steps[0]
    assert step.config["llm"] == LLMConfig(provider="openai", model="gpt-4o", temperature=0.1)


def test_the_agents_model_serves_each_step_that_names_none() -> None:
    default, own = ScriptedChatModel(replies=["default"]), ScriptedChatModel(replies=["own"])
    factory = AgentFactory(DefaultState).with_llm(default).with_chat().with_chat(llm=own)
    assert [step.name for step in factory.config.steps] == ["chat", "chat_2"]
    result = factory.build().invoke("Hello")
    assert [message.text for message in result["messages"]] == ["Hello", "default", "own"]
    assert AgentFactory(DefaultState).with_llm("openai", "gpt-4o", temperature=0).with_chat().config.llm == LLMConfig(
        provider="openai", model="gpt-4o", temperature=0
    )


def test_models_that_cannot_be_used_are_refused() -> None:
    chat = AgentFactory(DefaultState)
    with pytest.raises(AgentConfigurationError, match="names no model, and the agent has none"):
        AgentFactory(DefaultState).with_chat().build()
    with pytest.raises(AgentConfigurationError, match="Both llm and llm_config are given"):
        chat.with_chat(llm="demo:", llm_config="demo:")
    with pytest.raises(AgentConfigurationError, match="A ready model takes no further settings"):
        chat.with_chat(llm=ScriptedChatModel(replies=[]), temperature=0.1)
    with pytest.raises(AgentConfigurationError, match="did you mean 'temperature'"):
        chat.with_chat(llm="demo:", temprature=0.1)
    bound: Any = ScriptedChatModel(replies=[]).bind(stop=["."])
    for wrong in (bound, 7):
        for use in (chat.with_llm, chat.with_chat):
            with pytest.raises(AgentConfigurationError, match=f"a LangChain chat model, not {type(wrong).__name__}"):
                use(wrong)
    with pytest.raises(AgentConfigurationError, match="The model of step 'chat' cannot be used"):
        AgentFactory(DefaultState).add(StepConfig(type="llm", name="chat", config={"llm": 7})).build()


# --- structured answers -------------------------------------------------------------------------------------------


class Plan(BaseModel):
    city: str
    days: int


def plan_call() -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "Plan", "args": {"city": "Oslo", "days": 3}, "id": "plan-1"}])


def test_a_structured_answer_fills_the_keys_of_its_names() -> None:
    model = ScriptedChatModel(replies=[plan_call()])
    result = AgentFactory(Trip).with_chat(llm=model).with_structured_output(Plan).build().invoke("A trip to Oslo")
    assert (result["city"], result["days"]) == ("Oslo", 3)
    assert [message.text for message in result["messages"]] == ["A trip to Oslo", '{"city":"Oslo","days":3}']


def test_a_structured_answer_goes_under_its_key() -> None:
    class Planned(TypedDict, total=False):
        plan: Plan

    Planned.__annotations__["plan"] = Plan
    model = ScriptedChatModel(replies=[plan_call()])
    agent = AgentFactory(Planned).with_chat(llm=model).with_structured_output(Plan, key="plan").build()
    assert agent.invoke("A trip to Oslo")["plan"] == Plan(city="Oslo", days=3)


def test_a_structured_answer_needs_a_place_and_no_tools() -> None:
    with pytest.raises(AgentConfigurationError, match="writes the structured answer to 'city', which the state does"):
        AgentFactory(DefaultState).with_chat(llm="demo:").with_structured_output(Plan).build()
    with pytest.raises(AgentConfigurationError, match="both tools and structured_output"):
        AgentFactory(Trip).with_chat(llm="demo:").with_tools([add]).with_structured_output(Plan).build()
    with pytest.raises(AgentConfigurationError, match="must be a pydantic model"):
        AgentFactory(Trip).with_chat(llm="demo:").with_structured_output(dict).build()


# --- tools --------------------------------------------------------------------------------------------------------


def test_a_chat_with_tools_calls_them_until_it_needs_no_more() -> None:
    model = ScriptedChatModel(replies=[call_add(1, 2), call_add(3, 4, "call-2"), "3 and 7."])
    agent = AgentFactory(Trip).with_chat(llm=model).with_tools([add], scratchpad_key="notes").build()
    result = agent.invoke("Add.")
    assert [m.text for m in result["messages"]] == ["Add.", "", "3", "", "7", "3 and 7."]
    assert result["notes"] == (
        'Action: add({"a": 1, "b": 2})\nObservation: 3\nAction: add({"a": 3, "b": 4})\nObservation: 7\n'
    )
    assert len(model.requests) == 3


@pytest.mark.parametrize("kind", ["chat", "react", "tool"])
def test_a_function_that_can_be_no_tool_is_named(kind: str) -> None:
    def undescribed(city: str) -> str:
        return city

    factory = AgentFactory(DefaultState).with_llm("demo:")
    match kind:
        case "chat":
            factory.with_chat().with_tools([undescribed])
        case "react":
            factory.with_react_loop([undescribed])
        case _:
            factory.with_tool_step([undescribed])
    with pytest.raises(
        AgentConfigurationError, match="has a tool 'undescribed' that cannot be one: Function must have"
    ):
        factory.build()


def fetches_with(kind: str, fetch: Any) -> AgentFactory:
    call = AIMessage("", tool_calls=[{"name": "fetch", "args": {}, "id": "1"}])
    factory, model = AgentFactory(DefaultState), ScriptedChatModel(replies=[call, "Done."])
    return (
        factory.with_react_loop([fetch], llm=model)
        if kind == "react"
        else factory.with_chat(llm=model).with_tools([fetch])
    )


def test_the_tools_of_a_step_are_tried_again_with_it() -> None:
    tries: list[str] = []

    def fetch() -> str:
        """Fetch it."""
        tries.append("fetch")
        if len(tries) < 3:
            raise ConnectionError("down")
        return "it"

    with fetches_with("chat", fetch).with_retry(3, delay=0).build() as agent:
        assert agent.invoke("Fetch it.")["messages"][-1].text == "Done."
    assert len(tries) == 3


@pytest.mark.parametrize("kind", ["chat", "react"])
def test_the_tools_of_a_step_have_its_time_limit(kind: str) -> None:
    async def fetch() -> str:
        """Fetch it."""
        await asyncio.sleep(5)
        return "it"

    with fetches_with(kind, fetch).with_timeout(0.5).build() as agent, pytest.raises(NodeTimeoutError):
        agent.invoke("Fetch it.")


def test_two_tools_of_one_name_are_refused() -> None:
    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    other = StructuredTool.from_function(multiply, name="add")
    with pytest.raises(AgentConfigurationError, match="Step 'chat' has two tools called 'add'; give one another name"):
        AgentFactory(DefaultState).with_chat(llm="demo:").with_tools([add, multiply, other]).build()


def test_a_prompt_is_asked_once_though_tools_answer_in_between() -> None:
    model = ScriptedChatModel(replies=[call_add(1, 2), "3."])
    agent = AgentFactory(DefaultState).with_chat(llm=model, prompt_template="Add: {input}").with_tools([add]).build()
    result = agent.invoke("1 and 2")
    assert [m.text for m in result["messages"]] == ["Add: 1 and 2", "", "3", "3."]


def test_building_twice_gives_two_equal_agents() -> None:
    factory = AgentFactory(DefaultState).with_chat(llm="demo:").with_tools([add])
    first, second = factory.build(), factory.build()
    assert first == second
    assert first is not second
    assert hash(first) == hash(second)
    assert first.diagram() == second.diagram()
    assert first != "agent"
    assert set(first.graph.nodes) == {"__start__", "chat", "chat_tools"}


def test_react_tools_keep_a_scratchpad() -> None:
    class Padded(TypedDict, total=False):
        scratchpad: str

    model = ScriptedChatModel(replies=[call_add(1, 2), "3."])
    result = AgentFactory(Padded).with_chat(llm=model).with_react_tools([add]).build().invoke("Add.")
    assert result["scratchpad"].startswith("Action: add(")
    with pytest.raises(AgentConfigurationError, match="writes the scratchpad to 'scratchpad'"):
        AgentFactory(DefaultState).with_chat(llm="demo:").with_react_tools([add]).build()


def test_a_tool_step_runs_what_the_last_message_asks_for() -> None:
    agent = AgentFactory(Trip).with_tool_step([add], scratchpad_key="notes").build()
    result = agent.invoke({"messages": [call_add(1, 2)]})
    assert isinstance(result["messages"][-1], ToolMessage)
    assert result["messages"][-1].text == "3"
    assert result["notes"] == 'Action: add({"a": 1, "b": 2})\nObservation: 3\n'
    assert agent.invoke({"messages": [("user", "no call")]})["messages"][-1].text == "no call"


# --- react --------------------------------------------------------------------------------------------------------


def test_a_react_loop_reasons_and_acts() -> None:
    model = ScriptedChatModel(replies=[call_add(1, 2), "The sum is 3."])
    agent = (
        AgentFactory(Trip)
        .with_react_loop([add], llm=model, system_prompt="Plan for {city}.", scratchpad_key="notes")
        .build()
    )
    result = agent.invoke({"city": "Oslo", "messages": [("user", "Add.")]})
    assert [m.text for m in result["messages"]] == ["Add.", "", "3", "The sum is 3."]
    assert sent(model, 0) == [("system", "Plan for Oslo."), ("human", "Add.")]
    assert sent(model, 1)[0] == ("system", "Plan for Oslo.")
    assert result["notes"] == 'Action: add({"a": 1, "b": 2})\nObservation: 3\n'


def test_a_react_loop_stops_at_its_limit() -> None:
    model = ScriptedChatModel(replies=[call_add(1, n, f"call-{n}") for n in range(10)])
    agent = AgentFactory(DefaultState).with_react_loop([add], llm=model, max_iterations=2).build()
    result = agent.invoke("Add for ever.")
    assert len(model.requests) == 2
    assert "limit" in result["messages"][-1].text


def test_a_react_loop_can_end_with_a_structured_answer() -> None:
    model = ScriptedChatModel(replies=[call_add(1, 2), plan_call()])
    agent = AgentFactory(Trip).with_react_loop([add], llm=model).with_structured_output(Plan).build()
    result = agent.invoke("A trip")
    assert (result["city"], result["days"]) == ("Oslo", 3)


def test_a_react_loops_prompt_is_part_of_the_conversation() -> None:
    model = ScriptedChatModel(replies=["Three days."])
    agent = AgentFactory(Trip).with_react_loop([add], llm=model, prompt_template="Days in {city}?").build()
    result = agent.invoke({"city": "Oslo", "messages": [("user", "Hi"), ("assistant", "Hello")]})
    assert [m.text for m in result["messages"]] == ["Hi", "Hello", "Days in Oslo?", "Three days."]


# --- custom steps, routes, retries, time-outs ---------------------------------------------------------------------


def test_functions_of_every_kind_are_steps() -> None:
    def plain(state: Trip) -> Trip:
        return {"log": ["plain"]}

    async def awaited(state: Trip) -> Trip:
        return {"log": ["awaited"]}

    def with_argument(state: Trip, word: str) -> Trip:
        return {"log": [word]}

    inner = StateGraph(Trip)  # type: ignore[type-var]
    inner.add_node("inside", plain)
    inner.set_entry_point("inside")
    agent = (
        AgentFactory(Trip)
        .add(plain)
        .add(awaited, node_name="waited")
        .add(with_argument, word="argued")
        .add(RunnableLambda(lambda state: {"log": ["runnable"]}), "runnable")
        .add(StepConfig(type="custom", name="configured", config={"function": plain}), node_name="renamed")
        .add(inner.compile(), "graph")
        .build()
    )
    assert agent.invoke({})["log"] == ["plain", "awaited", "argued", "runnable", "plain", "plain", "awaited", "argued",
                                       "runnable", "plain", "plain"]  # fmt: skip
    assert list(agent.graph.nodes)[1:] == ["plain", "waited", "with_argument", "runnable", "renamed", "graph"]


@pytest.mark.parametrize(
    ("step", "arguments", "problem"),
    [
        (lambda state: state, {}, "no name of its own; pass node_name"),
        (7, {}, "not int"),
        (StepConfig(type="custom", name="a", config={"function": dict}), {"x": 1}, "takes no arguments"),
    ],
)
def test_what_is_no_step_is_refused(step: Any, arguments: Any, problem: str) -> None:
    with pytest.raises(AgentConfigurationError, match=problem):
        AgentFactory(Trip).add(step, **arguments)


def test_what_is_no_state_type_is_refused() -> None:
    """A name such as YAML takes is none in code."""
    with pytest.raises(AgentConfigurationError, match=r"^Agent 'agent': state_type: Input should be a type\.$"):
        AgentFactory("DefaultState").add(named("a")).build()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (StepConfig(type="custom", name="a", config={"function": "text"}), "needs a function of the state"),
        (
            StepConfig(type="custom", name="a", config={"functoin": dict}),
            "no option 'functoin'. Did you mean 'function'",
        ),
        (StepConfig(type="custom", name="a"), "function: Field required"),
        (
            StepConfig(type="custom", name="a", config={"function": RunnableLambda(dict), "arguments": {"x": 1}}),
            "is a Runnable, which takes no arguments",
        ),
        (
            StepConfig(type="lm", name="a"),
            "which is not registered. Did you mean 'llm'? Known: llm, react, tool, custom.",
        ),
    ],
)
def test_a_step_that_cannot_work_is_refused_when_it_is_built(step: StepConfig, problem: str) -> None:
    with pytest.raises(AgentConfigurationError) as caught:
        AgentFactory(Trip).add(step).build()
    assert problem in str(caught.value)


def named(name: str) -> Any:
    def run(state: Trip) -> Trip:
        return {"log": [name]}

    run.__name__ = name
    return run


async def by_city(state: Trip) -> str:
    await asyncio.sleep(0)
    return state["city"]


@pytest.mark.parametrize("condition", ["city", lambda state: state["city"], by_city], ids=["key", "sync", "async"])
@pytest.mark.parametrize(
    ("city", "log"), [("Oslo", ["start", "north", "rest"]), ("Rome", ["start", "south"]), ("Here", ["start"])]
)
def test_a_condition_chooses_the_way(condition: Any, city: str, log: list[str]) -> None:
    agent = (
        AgentFactory(Trip)
        .add(named("start"))
        .with_condition(condition, {"Oslo": "north", "Rome": "south", "Here": END})
        .add(named("north"))
        .with_next("rest")
        .add(named("south"))
        .with_next("END")
        .add(named("rest"))
        .build()
    )
    assert agent.invoke({"city": city})["log"] == log
    with pytest.raises(AgentConfigurationError, match=r"behind step 'start' returned 'Mars', which none of its routes"):
        agent.invoke({"city": "Mars"})


def test_a_condition_may_choose_several_ways() -> None:
    def ways(state: Trip) -> Any:
        return ["a", Send("b", {"city": "sent"})]

    agent = (
        AgentFactory(Trip).add(named("start")).with_condition(ways, {"a": "a", "b": "b"})
        .add(named("a")).with_next(END).add(named("b")).build()
    )  # fmt: skip
    assert sorted(agent.invoke({})["log"]) == ["a", "b", "start"]


def test_a_step_that_is_sent_a_state_asks_before_it_runs() -> None:
    """Once for each state, and it runs with the one that was approved."""
    factory = AgentFactory(Trip).add(named("start"))
    factory.with_condition(lambda state: [Send("b", {"city": city}) for city in ("Oslo", "Rome")], {"b": "b"})
    factory.add(lambda state: {"log": [state["city"]]}, "b").with_approval("Go to {city}?")
    with factory.with_checkpointer("memory://").build() as agent:
        thread = agent.thread("t")
        assert thread.invoke({"city": "Bonn"})["log"] == ["start"]
        asked = {question.value["question"]: question.id for question in thread.interrupts()}
        assert set(asked) == {"Go to Oslo?", "Go to Rome?"}
        answers = {asked["Go to Oslo?"]: "no", asked["Go to Rome?"]: "yes"}
        assert thread.resume(answers=answers)["log"] == ["start", "Rome"]


def test_a_state_that_is_sent_to_no_step_is_refused() -> None:
    """LangGraph would only log it, and lose what was sent."""
    factory = AgentFactory(Trip).add(named("start")).with_condition(lambda state: Send("zzz", {}), {"b": "b"})
    with factory.add(named("b")).build() as agent, pytest.raises(AgentConfigurationError) as raised:
        agent.invoke({})
    assert str(raised.value) == ("The condition behind step 'start' sends to 'zzz', which is no step. Known: start, b.")


@pytest.mark.parametrize("route", ["notes", by_city], ids=["key", "async"])
def test_a_condition_behind_a_chat_with_tools_waits_for_the_tools(route: Any) -> None:
    model = ScriptedChatModel(replies=[call_add(1, 2), "3."])
    agent = (
        AgentFactory(Trip)
        .with_chat(llm=model)
        .with_tools([add])
        .with_condition(route, {"x": "found", "y": END})
        .add(named("found"))
        .build()
    )
    result = agent.invoke({"notes": "x", "city": "x", "messages": [("user", "Add.")]})
    assert (len(result["messages"]), result["log"]) == (4, ["found"])


def test_a_condition_that_cannot_work_is_refused() -> None:
    with pytest.raises(AgentConfigurationError, match="reads 'town', which the state does not have"):
        AgentFactory(Trip).add(named("a")).with_condition("town", {"x": END}).build()
    with pytest.raises(AgentConfigurationError, match="is no function"):
        AgentFactory(Trip).add(named("a")).with_condition(7, {"x": END}).build()  # type: ignore[arg-type]
    with pytest.raises(AgentConfigurationError, match="belongs behind a step; add one first"):
        AgentFactory(Trip).with_condition("city", {"x": END})
    with pytest.raises(AgentConfigurationError, match=r"with_prompt belongs behind a step of kind llm or react"):
        AgentFactory(Trip).add(named("a")).with_prompt("x")


def test_a_steps_name_may_not_be_that_of_a_node_beside_another_step() -> None:
    factory = AgentFactory(Trip).add(named("a")).with_approval().add(named("b"), "approve_a")
    with pytest.raises(AgentConfigurationError, match="'approve_a' has the name of the node that asks before step 'a'"):
        factory.build()
    factory = AgentFactory(Trip).add(named("a")).with_condition("city", {"x": "END"}).with_approval(on_reject="skip")
    with pytest.raises(AgentConfigurationError, match="'skip_a' has the name of the node that goes on behind step 'a'"):
        factory.add(named("b"), "skip_a").build()
    factory = AgentFactory(DefaultState).with_chat(llm="demo:").with_tools([add]).add(named("b"), "chat_tools")
    with pytest.raises(AgentConfigurationError, match="'chat_tools' has the name of the node that runs the tools of"):
        factory.build()


def test_a_step_is_tried_again() -> None:
    tries: list[float] = []

    def fragile(state: Trip) -> Trip:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise RuntimeError("not yet")
        return {"log": ["done"]}

    agent = AgentFactory(Trip).add(fragile).with_retry(3, delay=0.01, backoff=1).build()
    assert agent.invoke({})["log"] == ["done"]
    assert len(tries) == 3


def test_only_the_named_exceptions_are_tried_again() -> None:
    tries: list[int] = []

    def fragile(state: Trip) -> Trip:
        tries.append(1)
        raise RuntimeError("never")

    with pytest.raises(RuntimeError, match="never"):
        AgentFactory(Trip).add(fragile).with_retry(3, delay=0.01, on=[ConnectionError]).build().invoke({})
    assert len(tries) == 1
    with pytest.raises(AgentConfigurationError, match="A retry is for exception types"):
        AgentFactory(Trip).add(fragile).with_retry(2, on=["RuntimeError"]).build()  # type: ignore[list-item]
    with pytest.raises(AgentConfigurationError, match="greater than or equal to 1"):
        AgentFactory(Trip).add(fragile).with_retry(0)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_step_that_takes_too_long_is_given_up(kind: str) -> None:
    release = threading.Event()

    def slow(state: Trip) -> Trip:
        release.wait(20)
        return {"log": ["too late"]}

    async def aslow(state: Trip) -> Trip:
        await asyncio.sleep(20)
        return {"log": ["too late"]}

    agent = AgentFactory(Trip).add(slow if kind == "sync" else aslow, "slow").with_timeout(0.1).build()
    with pytest.raises(NodeTimeoutError, match="'slow' exceeded its run timeout"):
        agent.invoke({})
    release.set()
    agent.close()


def test_a_chat_can_time_out() -> None:
    model = ScriptedChatModel(replies=["too late"], latency=20)
    agent = AgentFactory(DefaultState).with_chat(llm=model).with_timeout(0.1).build()
    with pytest.raises(NodeTimeoutError):
        agent.invoke("Hello")


def test_a_kind_of_ones_own_is_registered_on_a_registry_that_is_passed_in() -> None:
    def shout(step: StepConfig, context: StepContext) -> Any:
        context.require_key("notes", step.name, "its noise")
        return lambda state: {"notes": state["city"].upper() + step.config.get("mark", "")}

    registry = StepRegistry({"shout": shout})
    step = StepConfig(type="shout", name="loud", config={"mark": "!"})
    agent = AgentFactory(Trip, registry=registry).add(step).build()
    assert agent.invoke({"city": "Oslo"})["notes"] == "OSLO!"
    assert "messages" not in agent.graph.channels
    with pytest.raises(AgentConfigurationError, match="not registered"):
        AgentFactory(Trip).add(step).build()
    other = StepRegistry()
    other.register("shout", shout)
    assert other.kinds == registry.kinds == ("llm", "react", "tool", "custom", "shout")
    with pytest.raises(AgentConfigurationError, match="writes its noise to 'notes'"):
        AgentFactory(DefaultState, registry=registry).add(step).build()


def test_an_agent_streams_updates_and_tokens() -> None:
    model = ScriptedChatModel(replies=["one two three"])
    agent = AgentFactory(Trip).add(named("a")).with_chat(llm=model, prompt_template="{city}").build()
    items = list(agent.stream({"city": "Oslo"}, stream_mode=["updates", "messages"]))
    assert next(item[1] for item in items if item[0] == "updates") == {"a": {"log": ["a"]}}
    messages = [item[1][0] for item in items if item[0] == "messages"]
    tokens = [message.text for message in messages if isinstance(message, AIMessageChunk)]
    assert "".join(tokens) == "one two three"
    assert len(tokens) >= 3


def test_a_system_message_in_the_history_stays_where_it_is() -> None:
    model = ScriptedChatModel(replies=["Hi."])
    agent = AgentFactory(DefaultState).with_react_loop([add], llm=model).build()
    agent.invoke({"messages": [SystemMessage("Be kind."), HumanMessage("Hello")]})
    assert sent(model) == [("system", "Be kind."), ("human", "Hello")]


def test_the_diagram_is_mermaid_text() -> None:
    text = AgentFactory(Trip).add(named("a")).with_approval().add(named("b")).diagram()
    assert "graph TD" in text
    for edge in ("__start__ --> approve_a", "approve_a -.-> a", "approve_a -.-> __end__", "a --> b", "b --> __end__"):
        assert edge in text
