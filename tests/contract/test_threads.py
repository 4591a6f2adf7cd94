"""What a thread promises, on every storage: kept, isolated, resumable, and its whole past at hand."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.graph import StateGraph
from langgraph.types import Command, Send, interrupt

from petal.core.agent import Agent
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import (
    CheckpointerError,
    CheckpointNotFoundError,
    InterruptIdRequiredError,
    InvalidAnswerError,
    NothingToResumeError,
    StepRejectedError,
    ThreadIdRequiredError,
    TooFewTurnsError,
    UnknownInterruptError,
)
from petal.types.state import DefaultState


class Log(TypedDict, total=False):
    entries: Annotated[list[str], operator.add]


def first(state: Log) -> Log:
    return {"entries": ["first"]}


async def second(state: Log) -> Log:
    return {"entries": ["second"]}


def two_steps(storage: CheckpointerConfig) -> AgentFactory:
    return AgentFactory(Log).add(first).add(second).with_checkpointer(storage)


async def test_state_outlives_the_agent(durable_storage: CheckpointerConfig) -> None:
    factory = two_steps(durable_storage)
    async with factory.build() as agent:
        await agent.ainvoke({"entries": ["begin"]}, thread_id="t")
    async with factory.build() as agent:
        assert (await agent.thread("t").astate()).values == {"entries": ["begin", "first", "second"]}
        assert await agent.ainvoke({"entries": ["again"]}, thread_id="t") == {
            "entries": ["begin", "first", "second", "again", "first", "second"]
        }


def test_both_faces_see_the_same_thread(storage: CheckpointerConfig) -> None:
    with two_steps(storage).build() as agent:
        assert agent.invoke({}, thread_id="t") == {"entries": ["first", "second"]}
        assert agent.run({}, thread_id="t")["entries"] == ["first", "second"] * 2

        async def read() -> Any:
            return (await agent.thread("t").astate()).values

        assert agent.portal.call(read) == agent.thread("t").state().values


async def test_both_faces_work_inside_a_running_loop(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        assert agent.invoke({}, thread_id="sync") == await agent.arun({}, thread_id="async")
        assert agent.thread("sync").state().values == (await agent.thread("async").astate()).values
        config = {"configurable": {"thread_id": "sync"}}
        assert agent.graph.get_state(config) == await agent.graph.aget_state(config)


async def test_threads_are_isolated(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        await agent.abatch([{"entries": [str(n)]} for n in range(8)], thread_ids=[f"t{n}" for n in range(8)])
        for n in range(8):
            assert (await agent.thread(f"t{n}").astate()).values == {"entries": [str(n), "first", "second"]}


async def test_a_run_needs_a_thread(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        for call in (agent.ainvoke({}), agent.ainvoke({}, {"configurable": {"user": "x"}}), agent.abatch([{}])):
            with pytest.raises(ThreadIdRequiredError, match="pass thread_id='user-123'"):
                await call
        with pytest.raises(ThreadIdRequiredError):
            await anext(agent.astream({}))


async def test_nobody_shares_the_thread_of_no_id(storage: CheckpointerConfig) -> None:
    """An id that a caller does not have, such as that of a user who is not logged in, names no thread."""
    nobody: Any = None
    async with two_steps(storage).build() as agent:
        for thread_id in (nobody, ""):
            with pytest.raises(ThreadIdRequiredError):
                agent.thread(thread_id)
        with pytest.raises(ThreadIdRequiredError):
            await agent.graph.ainvoke({}, {"configurable": {"thread_id": nobody}})


async def test_a_run_has_one_thread(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        with pytest.raises(ValueError, match="thread_id is 't', and the config's thread_id 'u'; keep one of them"):
            await agent.ainvoke({}, {"configurable": {"thread_id": "u"}}, thread_id="t")
        assert await agent.ainvoke({}, {"configurable": {"thread_id": "t"}}, thread_id="t")


async def test_a_misspelt_argument_is_refused(storage: CheckpointerConfig) -> None:
    """It would otherwise be left out, and the run begin at the latest checkpoint, or wait."""
    async with two_steps(storage).build() as agent:
        thread = agent.thread("t")
        with pytest.raises(TypeError, match=r"no argument 'checkpont_id'\. Did you mean 'checkpoint_id'"):
            await thread.ainvoke({}, checkpont_id="1ef")
        for mode in ("vlues", ["updates", "vlues"]):
            with pytest.raises(ValueError, match=r"no stream_mode 'vlues'\. Did you mean 'values'"):
                [item async for item in agent.astream({}, thread_id="t", stream_mode=mode)]  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no stream_mode 'vlues'"):
            await agent.ainvoke({}, thread_id="t", stream_mode="vlues")
        with pytest.raises(TypeError, match=r"no argument 'on_conflit'\. Did you mean 'on_conflict'"):
            await anext(agent.astream({}, thread_id="t", on_conflit="reject"))
        assert await thread.ahistory() == []
        assert await thread.ainvoke({}, context=None, interrupt_before=[], debug=False, version="v1")


async def test_a_checkpoint_is_named_by_text(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        thread: Any = agent.thread("t")
        await thread.ainvoke({})
        state = await thread.astate()
        for act in (thread.afork(state), thread.astate(state), thread.ainvoke(None, checkpoint_id=state)):
            with pytest.raises(
                TypeError, match="by its id or a branch's name, not by StateSnapshot; the id of a state"
            ):
                await act


async def test_a_thread_may_be_named_as_langgraph_does(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        await agent.ainvoke({}, {"configurable": {"thread_id": "t"}, "tags": ["kept"]})
        assert (await agent.thread("t").astate()).values == {"entries": ["first", "second"]}


async def test_a_batch_needs_a_thread_each(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        for ids in (["a"], ["a", "a"]):
            with pytest.raises(ValueError, match="a thread id of its own for each of the 2 inputs"):
                await agent.abatch([{}, {}], thread_ids=ids)
        with pytest.raises(ValueError, match="one config, or one for each of the 2 inputs"):
            await agent.abatch([{}, {}], [{}], thread_ids=["a", "b"])
        assert agent.batch([{}, {}], thread_ids=["a", "b"], max_concurrency=1) == [{"entries": ["first", "second"]}] * 2


async def test_a_batch_raises_what_its_run_raised(storage: CheckpointerConfig) -> None:
    begun = list[str]()

    def fetch(state: Log) -> Log:
        begun.append(state["entries"][0])
        if "down" in begun[-1]:
            raise ConnectionError(begun[-1])
        return {"entries": ["fetched"]}

    inputs = [{"entries": [name]} for name in ("up", "down", "down too", "later")]
    ids = ["a", "b", "c", "d"]
    async with AgentFactory(Log).add(fetch).with_checkpointer(storage).build() as agent:
        with pytest.raises(ConnectionError, match="down"):
            await agent.abatch(inputs, thread_ids=ids, max_concurrency=1)
        assert begun == ["up", "down"]
        with pytest.raises(ConnectionError):
            agent.batch(inputs[:2], thread_ids=["e", "f"])
        assert agent.thread("e").state().values == {"entries": ["up", "fetched"]}
        configs = [{"configurable": {"thread_id": f"{id} again"}} for id in ids]
        first, second, third, fourth = agent.batch(inputs, configs, return_exceptions=True)
        assert [first, fourth] == [{"entries": ["up", "fetched"]}, {"entries": ["later", "fetched"]}]
        assert [str(error) for error in (second, third)] == ["down", "down too"]


async def test_history_lists_the_newest_first(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        thread = agent.thread("t")
        assert await thread.ahistory() == []
        await thread.ainvoke({"entries": ["begin"]})
        states = await thread.ahistory()
        assert [state.values.get("entries", []) for state in states] == [
            ["begin", "first", "second"],
            ["begin", "first"],
            ["begin"],
            [],
        ]
        assert await thread.ahistory(limit=2) == states[:2]
        before = states[1].config["configurable"]["checkpoint_id"]
        assert thread.history(before=before, limit=1) == states[2:3]


async def test_time_travel_runs_on_from_any_checkpoint(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": ["begin"]})
        after_first = (await thread.ahistory())[1].config["configurable"]["checkpoint_id"]
        assert (await thread.astate(after_first)).next == ("second",)
        assert await thread.ainvoke(None, checkpoint_id=after_first) == {"entries": ["begin", "first", "second"]}
        with pytest.raises(CheckpointNotFoundError, match="Thread 't' has no checkpoint '1ef'"):
            await thread.astate("1ef")


async def test_a_state_can_be_edited(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        await thread.aupdate({"entries": ["edited"]}, as_node="second")
        assert (await thread.astate()).values["entries"] == ["first", "second", "edited"]
        after_first = (await thread.ahistory())[2].config["configurable"]["checkpoint_id"]
        thread.update({"entries": ["edited"]}, as_node="first", checkpoint_id=after_first)
        state = thread.state()
        assert (state.values["entries"], state.next) == (["first", "edited"], ("second",))


async def test_a_fork_leaves_the_original_alone(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": ["begin"]})
        after_first = (await thread.ahistory())[1].config["configurable"]["checkpoint_id"]
        fork = await thread.afork(after_first, to="what-if")
        assert fork.thread_id == "what-if"
        await fork.aupdate({"entries": ["edited"]}, as_node="first")
        await fork.aresume()
        assert (await fork.astate()).values["entries"] == ["begin", "first", "edited", "second"]
        assert (await thread.astate()).values["entries"] == ["begin", "first", "second"]
        assert len(await thread.ahistory()) == 4
        head = thread.fork()
        assert head.state().values == thread.state().values
        assert head.thread_id != thread.thread_id


async def test_a_fork_of_nothing_and_onto_something_is_refused(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        with pytest.raises(CheckpointNotFoundError, match="Thread 'none' has no checkpoints"):
            await agent.thread("none").afork()
        with pytest.raises(CheckpointNotFoundError, match="Thread 'none' has no checkpoints"):
            await agent.thread("none").acopy("other")
        await agent.ainvoke({}, thread_id="t")
        with pytest.raises(CheckpointNotFoundError, match="no checkpoint '1ef'"):
            await agent.thread("t").afork("1ef", to="other")
        await agent.ainvoke({}, thread_id="taken")
        with pytest.raises(CheckpointerError, match="taken"):
            await agent.thread("t").afork(to="taken")
        for act in (agent.thread("t").afork(to=""), agent.thread("t").acopy("")):
            with pytest.raises(ThreadIdRequiredError):
                await act


async def test_copy_prune_and_delete(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        copy = await thread.acopy("copy")
        assert [s.values for s in await copy.ahistory()] == [s.values for s in await thread.ahistory()]
        await copy.aprune()
        assert [s.values for s in copy.history()] == [thread.state().values]
        copy.prune(strategy="delete")
        assert copy.history() == []
        await thread.adelete()
        assert (await thread.astate()).created_at is None
        agent.thread("never").delete()


async def test_rewinding_takes_back_turns(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        thread = agent.thread("t")
        for turn in ("one", "two", "three"):
            await thread.ainvoke({"entries": [turn]})
        assert (await thread.arewind()).values["entries"] == ["one", "first", "second", "two", "first", "second"]
        assert thread.rewind(turns=1).values["entries"] == ["one", "first", "second"]
        await thread.ainvoke({"entries": ["other"]})
        assert (await thread.astate()).values["entries"] == ["one", "first", "second", "other", "first", "second"]
        with pytest.raises(TooFewTurnsError, match="Of thread 't' 1 turn can be taken back, not 2;"):
            await thread.arewind(turns=2)
        with pytest.raises(ValueError, match="at least one turn"):
            await thread.arewind(turns=0)
        three = next(s for s in await thread.ahistory() if "three" in s.values["entries"] and not s.next)
        await thread.arewind(to=three.config["configurable"]["checkpoint_id"])
        assert (await thread.astate()).values == three.values


def ask(question: str) -> Any:
    def node(state: Log) -> Log:
        return {"entries": [f"{question} {interrupt(question)!r}"]}

    node.__name__ = question.strip("?")
    return node


def both_ask(storage: CheckpointerConfig) -> Agent:
    """Two steps that ask at the same time."""
    return (
        AgentFactory(Log)
        .add(first)
        .with_condition(lambda state: ["left", "right"], {"left": "left", "right": "right"})
        .add(ask("left?"))
        .with_next("END")
        .add(ask("right?"))
        .with_checkpointer(storage)
        .build()
    )


@pytest.mark.parametrize("answer", ["yes", None, False, "", 0, {}, {"a": [1]}], ids=repr)
async def test_any_value_answers_a_question(storage: CheckpointerConfig, answer: Any) -> None:
    factory = AgentFactory(Log).add(ask("sure?")).with_checkpointer(storage)
    async with factory.build() as agent:
        thread = agent.thread("t")
        result = await thread.ainvoke({})
        assert [question.value for question in result["__interrupt__"]] == ["sure?"]
        assert [question.value for question in await thread.ainterrupts()] == ["sure?"]
        assert await thread.aresume(answer) == {"entries": [f"sure? {answer!r}"]}
        assert thread.interrupts() == ()


async def test_all_pending_questions_are_listed_and_answered_one_by_one(storage: CheckpointerConfig) -> None:
    async with both_ask(storage) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        questions = {question.value: question.id for question in await thread.ainterrupts()}
        assert set(questions) == {"left?", "right?"}
        with pytest.raises(InterruptIdRequiredError) as caught:
            await thread.aresume("which?")
        assert set(caught.value.questions) == {(id, value) for value, id in questions.items()}
        with pytest.raises(UnknownInterruptError, match="no open question 'nobody'"):
            await thread.aresume("x", "nobody")
        await thread.aresume("L", questions["left?"])
        assert [question.value for question in await thread.ainterrupts()] == ["right?"]
        assert sorted((await thread.aresume("R"))["entries"]) == ["first", "left? 'L'", "right? 'R'"]


async def test_several_questions_can_be_answered_at_once(storage: CheckpointerConfig) -> None:
    async with both_ask(storage) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        answers = {question.id: question.value.upper() for question in await thread.ainterrupts()}
        result = await thread.aresume(answers=answers)
        assert sorted(result["entries"]) == ["first", "left? 'LEFT?'", "right? 'RIGHT?'"]


async def test_there_is_nothing_to_resume_where_nothing_waits(storage: CheckpointerConfig) -> None:
    async with two_steps(storage).build() as agent:
        for thread_id in ("unknown", "done"):
            if thread_id == "done":
                await agent.ainvoke({}, thread_id="done")
            with pytest.raises(
                NothingToResumeError, match=rf"'{thread_id}' (to resume|waits for no answer and has no unfinished)"
            ):
                await agent.thread(thread_id).aresume()
            with pytest.raises(NothingToResumeError):
                agent.thread(thread_id).resume("yes")
        assert (await agent.thread("unknown").astate()).created_at is None


async def test_open_questions_come_along_when_a_thread_is_forked(storage: CheckpointerConfig) -> None:
    async with AgentFactory(Log).add(ask("sure?")).with_checkpointer(storage).build() as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        fork = await thread.afork(to="fork")
        assert await fork.aresume("fork") == {"entries": ["sure? 'fork'"]}
        assert await thread.aresume("original") == {"entries": ["sure? 'original'"]}


def approved(storage: CheckpointerConfig, **approval: str) -> Agent:
    return AgentFactory(Log).add(first).with_approval(**approval).add(second).with_checkpointer(storage).build()


async def test_each_call_that_a_condition_sends_is_approved(storage: CheckpointerConfig) -> None:
    def visit(sent: Any) -> Log:
        return {"entries": [sent["city"]]}

    def ways(state: Log) -> list[Send]:
        return [Send("visit", {"city": city}) for city in ("Oslo", "Rome")]

    factory = AgentFactory(Log).add(first).with_condition(ways, {"visit": "visit"})
    factory.add(visit).with_approval().with_checkpointer(storage)
    async with factory.build() as agent:
        thread = agent.thread("t")
        assert (await thread.ainvoke({}))["entries"] == ["first"]
        oslo, rome = await thread.ainterrupts()
        assert oslo.value == rome.value == {"step": "visit", "question": "Run step visit?"}
        result = await thread.aresume(answers={oslo.id: "yes", rome.id: "no"})
        assert result["entries"] == ["first", "Oslo"]


def by_a_graph(command: Command[Any]) -> Any:
    inner = StateGraph(Log).add_node("leave", lambda state: replace(command, graph=Command.PARENT))
    return inner.add_edge("__start__", "leave").compile()


@pytest.mark.parametrize("goto", ["second", ["second"], Send("second", {"entries": ["sent"]})])
@pytest.mark.parametrize(
    "way", [lambda command: lambda state: command, lambda command: lambda state: [command], by_a_graph]
)
async def test_a_command_goes_past_no_approval(
    storage: CheckpointerConfig, goto: Any, way: Callable[[Command[Any]], Any]
) -> None:
    """Whether a step says so, or a graph within it."""
    factory = AgentFactory(Log).add(way(Command(goto=goto, update={"entries": ["first"]})), "first").with_next("END")
    factory.add(second).with_approval().with_checkpointer(storage)
    async with factory.build() as agent:
        thread = agent.thread("t")
        assert (await thread.ainvoke({}))["entries"] == ["first"]
        assert [question.value["step"] for question in await thread.ainterrupts()] == ["second"]
        assert (await thread.aresume("yes"))["entries"] == ["first", "second"]
        await thread.ainvoke({})
        assert (await thread.aresume("no"))["entries"] == ["first", "second", "first"]


async def test_a_tools_command_goes_past_no_approval(storage: CheckpointerConfig) -> None:
    def hand_over() -> Command[Any]:
        """Pay."""
        return Command(goto="pay", update={"messages": [ToolMessage("Gone to pay.", tool_call_id="call")]})

    asked = AIMessage("", tool_calls=[{"name": "hand_over", "args": {}, "id": "call"}])
    factory = AgentFactory(DefaultState).with_tool_step([hand_over]).with_next("END")
    factory.add(lambda state: {"input": "paid"}, "pay").with_approval().with_checkpointer(storage)
    async with factory.build() as agent:
        thread = agent.thread("t")
        assert "input" not in await thread.ainvoke({"messages": [asked]})
        assert (await thread.aresume("yes"))["input"] == "paid"


@pytest.mark.parametrize("goto", ["first", ["first"], Send("first", {"entries": ["sent"]})])
async def test_a_command_from_outside_goes_past_no_approval(storage: CheckpointerConfig, goto: Any) -> None:
    async with approved(storage) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        await thread.aresume("no")
        assert (await thread.ainvoke(Command(goto=goto)))["entries"] == []
        assert (await thread.aresume("yes"))["entries"] == ["first", "second"]


@pytest.mark.parametrize("goto", [(), None])
async def test_an_answer_may_come_with_nowhere_to_go(storage: CheckpointerConfig, goto: Any) -> None:
    """None is no place to LangGraph, as where it is known only at times."""
    async with approved(storage) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        assert (await thread.ainvoke(Command(resume="yes", goto=goto)))["entries"] == ["first", "second"]


def test_the_diagram_shows_that_a_command_leads_to_the_question() -> None:
    def choose(state: Log) -> Command[Literal["second"]]:
        return Command(goto="second")

    factory = AgentFactory(Log).add(choose).with_next("END").add(second).with_approval()
    assert "choose -.-> approve_second" in factory.build().diagram()


@pytest.mark.parametrize("answer", [True, "yes", "Y", {"approved": True}])
async def test_an_approved_step_runs(storage: CheckpointerConfig, answer: Any) -> None:
    async with approved(storage) as agent:
        thread = agent.thread("t")
        result = await thread.ainvoke({"entries": ["begin"]})
        assert result["__interrupt__"][0].value == {"step": "first", "question": "Run step first?"}
        assert result["entries"] == ["begin"]
        assert (await thread.aresume(answer))["entries"] == ["begin", "first", "second"]


@pytest.mark.parametrize(
    ("on_reject", "entries"), [("END", ["begin"]), ("skip", ["begin", "second"]), ("second", ["begin", "second"])]
)
async def test_a_rejected_step_does_not_run(storage: CheckpointerConfig, on_reject: str, entries: list[str]) -> None:
    async with approved(storage, on_reject=on_reject, prompt="{step} after {entries}?") as agent:
        thread = agent.thread("t")
        result = await thread.ainvoke({"entries": ["begin"]})
        assert result["__interrupt__"][0].value["question"] == "first after ['begin']?"
        assert (await thread.aresume(False))["entries"] == entries


@pytest.mark.parametrize(("begin", "entries"), [("on", ["on", "second"]), ("end", ["end"])])
async def test_behind_a_skipped_step_its_condition_says_where_to_go_on(
    storage: CheckpointerConfig, begin: str, entries: list[str]
) -> None:
    async def way(state: Log) -> str:
        return state["entries"][-1]

    factory = AgentFactory(Log).add(first).with_approval(on_reject="skip")
    factory.with_condition(way, {"first": "END", "on": "second", "end": "END"})
    async with factory.add(second).with_checkpointer(storage).build() as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": [begin]})
        assert (await thread.aresume("no"))["entries"] == entries
        await thread.ainvoke({})
        assert (await thread.aresume("yes"))["entries"] == [*entries, "first"]


async def test_a_rejection_may_be_a_failure(storage: CheckpointerConfig) -> None:
    async with approved(storage, on_reject="fail") as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        with pytest.raises(StepRejectedError, match="Step 'first' was not approved: too dear"):
            await thread.aresume({"approved": False, "reason": "too dear"})


@pytest.mark.parametrize("answer", ["maybe", 7, None, {"approve": True}])
async def test_an_answer_that_is_not_allowed_leaves_the_question_open(storage: CheckpointerConfig, answer: Any) -> None:
    async with approved(storage) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        with pytest.raises(InvalidAnswerError, match="It is still open"):
            await thread.aresume(answer)
        assert len(await thread.ainterrupts()) == 1
        assert (await thread.aresume("yes"))["entries"] == ["first", "second"]


async def test_a_failed_run_goes_on_at_the_step_that_failed(storage: CheckpointerConfig) -> None:
    broken = True

    def fragile(state: Log) -> Log:
        if broken:
            raise ConnectionError("down")
        return {"entries": ["fragile"]}

    async with AgentFactory(Log).add(first).add(fragile).with_checkpointer(storage).build() as agent:
        thread = agent.thread("t")
        with pytest.raises(ConnectionError, match="down"):
            await thread.ainvoke({})
        assert (await thread.astate()).next == ("fragile",)
        with pytest.raises(NothingToResumeError, match="has an unfinished run; resume it without a value"):
            await thread.aresume("an answer to nothing")
        broken = False
        assert await thread.aresume() == {"entries": ["first", "fragile"]}
