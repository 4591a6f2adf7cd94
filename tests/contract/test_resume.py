"""Strict resumption, on every storage: each answer goes where it belongs or is refused, and no question is overrun."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Interrupt, Send, interrupt
from pydantic import TypeAdapter, ValidationError

from petal.checkpoints import PetalSaver
from petal.core.agent import Agent, Thread
from petal.core.config.agent import AgentConfig
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import (
    CheckpointNotFoundError,
    ClosedInterruptError,
    InterruptIdRequiredError,
    InvalidAnswerError,
    NothingToResumeError,
    PendingInterruptError,
    UnknownInterruptError,
    UnknownThreadError,
)

NOBODY = "0123456789abcdef" * 2
"""An id as LangGraph makes them, of no question."""


class Log(TypedDict, total=False):
    entries: Annotated[list[str], operator.add]


def ask(*questions: str) -> Any:
    """A step that asks one after the other, and logs each answer."""

    def step(state: Log) -> Log:
        return {"entries": [f"{question} {interrupt(question)!r}" for question in questions]}

    step.__name__ = questions[0].strip("?")
    return step


class Outage:
    """Breaks the steps that pass through it, until it is over."""

    def __init__(self) -> None:
        self.over = False

    def strike(self) -> None:
        if not self.over:
            raise ConnectionError("down")


def built(storage: CheckpointerConfig, *steps: Any) -> Agent:
    factory = AgentFactory(Log)
    for step in steps:
        factory = factory.add(step)
    return factory.with_checkpointer(storage).build()


def of_graph(storage: CheckpointerConfig, builder: StateGraph[Any, Any, Any, Any]) -> Agent:
    """An agent around a graph that the factory's chain of steps cannot say."""
    outer = built(storage, ask("unused?"))
    return Agent(
        AgentConfig(name="graph", state_type=Log, steps=outer.config.steps, checkpointer=storage),
        builder.compile(checkpointer=outer.checkpointer),
        outer.checkpointer,
    )


def side_by_side(*questions: str) -> StateGraph[Any, Any, Any, Any]:
    """A graph whose steps all ask in the same superstep."""
    builder = StateGraph(Log)
    for question in questions:
        name = question.strip("?")
        builder.add_node(name, ask(question))
        builder.add_edge(START, name)
        builder.add_edge(name, END)
    return builder


async def opened(thread: Thread) -> dict[str, str]:
    """Ids of the open questions by what they ask; each face says the same."""
    questions = await thread.ainterrupts()
    assert thread.interrupts() == questions == (await thread.astate()).interrupts == thread.state().interrupts
    return {question.value: question.id for question in questions}


async def entries(thread: Thread) -> list[str]:
    return sorted((await thread.astate()).values.get("entries", []))


Answering = Callable[[Thread, Any, "str | None"], Any]


async def by_aresume(thread: Thread, value: Any, id: str | None) -> None:
    await thread.aresume(value, id)


async def by_resume(thread: Thread, value: Any, id: str | None) -> None:
    thread.resume(value, id)


async def by_astream_resume(thread: Thread, value: Any, id: str | None) -> None:
    assert [item async for item in thread.astream_resume(value, id)]


async def by_stream_resume(thread: Thread, value: Any, id: str | None) -> None:
    assert list(thread.stream_resume(value, id))


async def by_answers(thread: Thread, value: Any, id: str | None) -> None:
    await thread.aresume(answers={id or (await thread.ainterrupts())[0].id: value})


async def by_command(thread: Thread, value: Any, id: str | None) -> None:
    await thread.ainvoke(Command(resume=value if id is None else {id: value}))


async def by_streamed_command(thread: Thread, value: Any, id: str | None) -> None:
    assert list(thread.stream(Command(resume=value if id is None else {id: value})))


FACES = [by_aresume, by_resume, by_astream_resume, by_stream_resume, by_answers, by_command, by_streamed_command]
"""Each is tried on a thread of its own, which has its name."""


@pytest.mark.parametrize("value", [None, False, "", 0, {}, [], 0.0], ids=repr)
async def test_what_is_falsy_is_an_answer(storage: CheckpointerConfig, value: Any) -> None:
    """With an id and without, in each face. A Command without an id takes all but None, which is no answer in it."""
    async with built(storage, ask("sure?", "really?")) as agent:
        for face in FACES:
            thread = agent.thread(face.__name__)
            await thread.ainvoke({})
            await face(thread, value, (await opened(thread))["sure?"] if value is None else None)
            await face(thread, value, (await opened(thread))["really?"])
            assert await entries(thread) == [f"really? {value!r}", f"sure? {value!r}"]
        thread = agent.thread("None")
        await thread.ainvoke({})
        assert (await thread.aresume(value))["__interrupt__"][0].value == "really?"


async def test_a_step_may_have_any_name_that_can_be_built(storage: CheckpointerConfig) -> None:
    def ask(state: Log) -> Log:
        return {"entries": [interrupt("sure?")]}

    async with AgentFactory(Log).add(ask, "__ask").with_checkpointer(storage).build() as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        assert await thread.aresume("yes") == {"entries": ["yes"]}


async def test_an_answer_given_before_is_refused(storage: CheckpointerConfig) -> None:
    """It is not taken for the step's next question, nor for anything once the run has ended."""
    async with built(storage, ask("one?", "two?")) as agent:
        for answer in FACES:
            thread = agent.thread(answer.__name__)
            await thread.ainvoke({})
            one = (await opened(thread))["one?"]
            await answer(thread, "A", one)
            two = (await opened(thread))["two?"]
            with pytest.raises(ClosedInterruptError) as caught:
                await answer(thread, "A again", one)
            assert caught.value.answered
            assert str(caught.value) == (
                f"Question {one!r} of thread {thread.thread_id!r} was answered already, and that answer stands. "
                f"Open:\n  {two}: two?"
            )
            assert await opened(thread) == {"two?": two}
            await answer(thread, "B", two)
            with pytest.raises(ClosedInterruptError, match=r"that answer stands\. No question is open\.$"):
                await answer(thread, "B again", two)
            assert await entries(thread) == ["one? 'A'", "two? 'B'"]


async def test_an_answer_to_an_abandoned_question_is_refused(storage: CheckpointerConfig) -> None:
    """The question that the new input led to is another one."""
    async with built(storage, ask("sure?")) as agent:
        for answer in FACES:
            thread = agent.thread(answer.__name__)
            await thread.ainvoke({"entries": ["first input"]})
            old = (await opened(thread))["sure?"]
            await thread.ainvoke({"entries": ["second input"]}, on_pending="abandon")
            new = (await opened(thread))["sure?"]
            with pytest.raises(ClosedInterruptError) as caught:
                await answer(thread, "late", old)
            assert not caught.value.answered
            gone = f"Question {old!r} of thread {thread.thread_id!r} was given up."
            assert str(caught.value) == f"{gone} Open:\n  {new}: sure?"
            await answer(thread, "now", new)
            assert await entries(thread) == ["first input", "second input", "sure? 'now'"]


async def test_an_answer_for_another_thread_is_refused(storage: CheckpointerConfig) -> None:
    """Both threads stay as they are."""
    async with built(storage, ask("sure?")) as agent:
        for answer in FACES:
            mine, other = agent.thread(answer.__name__), agent.thread(f"other {answer.__name__}")
            await mine.ainvoke({})
            await other.ainvoke({})
            here, there = (await opened(mine))["sure?"], (await opened(other))["sure?"]
            for wrong in (there, NOBODY):
                with pytest.raises(UnknownInterruptError) as caught:
                    await answer(mine, "yes", wrong)
                assert type(caught.value) is UnknownInterruptError
                assert str(caught.value) == (
                    f"Thread {mine.thread_id!r} has no open question {wrong!r}; it may be another thread's. "
                    f"Open:\n  {here}: sure?"
                )
            assert (await opened(mine), await opened(other)) == ({"sure?": here}, {"sure?": there})


async def test_an_answer_for_no_thread_makes_none(storage: CheckpointerConfig) -> None:
    """LangGraph would begin a run."""
    async with built(storage, ask("sure?")) as agent:
        for answer in FACES:
            for id in (NOBODY, None):
                if id is None and answer is by_answers:
                    continue  # it needs an id
                with pytest.raises(
                    UnknownThreadError, match="There is no thread 'none' to resume; `petal threads list`"
                ):
                    await answer(agent.thread("none"), "yes", id)
            assert agent.thread("none").history() == []


async def test_without_a_value_no_thread_is_made(storage: CheckpointerConfig) -> None:
    async with built(storage, ask("sure?")) as agent:
        with pytest.raises(UnknownThreadError):
            await agent.thread("none").aresume()
        with pytest.raises(UnknownThreadError):
            list(agent.thread("none").stream_resume())
        await agent.ainvoke({}, thread_id="t")
        with pytest.raises(CheckpointNotFoundError, match="Thread 't' has no checkpoint '1ef'"):
            await agent.thread("t").aresume("yes", checkpoint_id="1ef")


KINDS = ["step", "subgraph", "subgraph that keeps a state", "called twice", "after a join", "sent"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_stands_when_its_step_fails(storage: CheckpointerConfig, kind: str) -> None:
    """The question is closed: a second answer would go to the next one. Without a value the run goes on."""
    outage = Outage()

    def step(state: Log) -> Log:
        first = interrupt("one?")
        outage.strike()
        return {"entries": [f"{first} {interrupt('two?')}"]}

    async with of_graph(storage, around(step, kind)) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": ["begin"]})
        one = (await opened(thread))["one?"]
        with pytest.raises(ConnectionError, match="down"):
            await thread.aresume("A")
        assert await opened(thread) == {}
        with pytest.raises(ClosedInterruptError, match="that answer stands"):
            await thread.aresume("B", one)
        with pytest.raises(NothingToResumeError, match="has an unfinished run; resume it without a value"):
            await thread.aresume("B")
        outage.over = True
        await thread.aresume()
        assert list(await opened(thread)) == ["two?"]
        await thread.aresume("C")
        assert "A C" in await entries(thread)


async def test_a_copy_of_a_failed_thread_has_failed_too(storage: CheckpointerConfig) -> None:
    """Although its step had asked before: so what died is found, and goes on with the answer."""
    outage = Outage()

    def step(state: Log) -> Log:
        answer = interrupt("one?")
        outage.strike()
        return {"entries": [answer]}

    async with built(storage, step) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": ["begin"]})
        with pytest.raises(ConnectionError, match="down"):
            await thread.aresume("A")
        await thread.acopy("copy")
        await thread.afork(to="fork")
        assert {run.thread_id: run.status for run in await agent.aincomplete()} == dict.fromkeys(
            ["t", "copy", "fork"], "failed"
        )
        outage.over = True
        assert (await agent.thread("fork").aresume())["entries"] == ["begin", "A"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fork_of_a_failed_head_that_was_left_has_failed_too(storage: CheckpointerConfig, kind: str) -> None:
    """Unless it asked again since."""
    outage = Outage()

    def step(state: Log) -> Log:
        first = interrupt("one?")
        outage.strike()
        return {"entries": [f"{first} {interrupt('two?')}"]}

    async with of_graph(storage, around(step, kind)) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": ["begin"]})
        await thread.ainvoke({"entries": ["begin"]}, on_pending="abandon")
        with pytest.raises(ConnectionError, match="down"):
            await thread.aresume("A")
        await thread.arewind(keep_as="failed")
        fork = await thread.afork("failed", to="fork")
        assert await status_of(fork) == "failed"
        outage.over = True
        await fork.aresume()
        assert list(await opened(fork)) == ["two?"]
        await fork.arewind(keep_as="asks")
        again = await fork.afork("asks", to="again")
        assert await status_of(again) == "waiting"
        await again.aresume("B")
        assert "A B" in await entries(again)


async def status_of(thread: Thread) -> str | None:
    """As the index of threads tells it."""
    saver = thread.agent.checkpointer
    assert isinstance(saver, PetalSaver)
    return next(info.status for info in await saver.athreads() if info.thread_id == thread.thread_id)


def around(step: Any, kind: str) -> StateGraph[Any, Any, Any, Any]:
    """A graph that runs the step in one of the ways in which a step can be run."""
    inner = StateGraph(Log).add_node("inner", step).add_edge(START, "inner").compile()
    plain = StateGraph(Log).add_node("plain", nothing).add_edge(START, "plain").compile()
    builder = StateGraph(Log)
    match kind:
        case "step":
            builder.add_node("work", step).add_edge(START, "work")
        case "subgraph":
            builder.add_node("work", inner).add_edge(START, "work")
        case "subgraph that keeps a state":
            keeping = StateGraph(Log).add_node("inner", step).add_edge(START, "inner").compile(checkpointer=True)
            builder.add_node("work", keeping).add_edge(START, "work")
        case "called twice":

            def work(state: Log) -> Log:
                plain.invoke({})
                return {"entries": inner.invoke({})["entries"]}

            builder.add_node("work", work).add_edge(START, "work")
        case "after a join":
            builder.add_node("left", nothing).add_node("right", nothing).add_node("work", step)
            builder.add_edge(START, "left").add_edge(START, "right").add_edge(["left", "right"], "work")
        case "sent":
            builder.add_node("work", step).add_conditional_edges(START, lambda state: [Send("work", {})], ["work"])
    return builder


def nothing(state: Log) -> Log:
    return {}


async def test_an_answer_stands_when_a_later_step_of_its_subgraph_fails(storage: CheckpointerConfig) -> None:
    """The outer graph still has the question, the inner one has gone on."""
    outage = Outage()

    def after(state: Log) -> Log:
        outage.strike()
        return {"entries": ["after"]}

    inner = StateGraph(Log).add_node("sure", ask("sure?")).add_node("after", after)
    inner.add_edge(START, "sure").add_edge("sure", "after")
    async with of_graph(storage, StateGraph(Log).add_node("work", inner.compile()).add_edge(START, "work")) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        with pytest.raises(ConnectionError, match="down"):
            await thread.aresume("yes")
        assert await opened(thread) == {}
        outage.over = True
        assert (await thread.aresume())["entries"] == ["sure? 'yes'", "after"]


NewInput = Callable[..., Any]


async def run_ainvoke(thread: Thread, **how: Any) -> None:
    await thread.ainvoke({"entries": ["new"]}, **how)


async def run_invoke(thread: Thread, **how: Any) -> None:
    thread.invoke({"entries": ["new"]}, **how)


async def run_astream(thread: Thread, **how: Any) -> None:
    assert [item async for item in thread.astream({"entries": ["new"]}, **how)]


async def run_stream(thread: Thread, **how: Any) -> None:
    assert list(thread.stream({"entries": ["new"]}, **how))


async def run_batch(thread: Thread, **how: Any) -> None:
    thread.agent.batch([{"entries": ["new"]}], thread_ids=[thread.thread_id], **how)


async def run_by_config(thread: Thread, **how: Any) -> None:
    await thread.agent.arun({"entries": ["new"]}, {"configurable": {"thread_id": thread.thread_id}}, **how)


RUNS = [run_ainvoke, run_invoke, run_astream, run_stream, run_batch, run_by_config]
"""Each is tried on a thread of its own, which has its name."""


def only(error: BaseException) -> BaseException:
    """The error that a task group wraps, if one does."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def test_new_input_does_not_overrun_a_question(storage: CheckpointerConfig) -> None:
    """It is refused before anything is run or saved."""
    async with built(storage, ask("sure?")) as agent:
        for run in RUNS:
            thread = agent.thread(run.__name__)
            await thread.ainvoke({"entries": ["old"]})
            sure, before = (await opened(thread))["sure?"], await thread.ahistory()
            with pytest.raises((PendingInterruptError, BaseExceptionGroup)) as caught:
                await run(thread)
            error = only(caught.value)
            assert isinstance(error, PendingInterruptError)
            assert str(error) == (
                f"Thread {thread.thread_id!r} waits for an answer and takes no new input until then; resume it with "
                f"one, or send the input with on_pending='abandon' to give up the question:\n  {sure}: sure?"
            )
            assert await thread.ahistory() == before
            assert (await thread.aresume("yes", sure))["entries"] == ["old", "sure? 'yes'"]


async def test_an_id_that_is_empty_lets_no_input_overrun_a_question(storage: CheckpointerConfig) -> None:
    """LangGraph takes it as none, so it begins no branch."""
    async with built(storage, ask("sure?")) as agent:
        await agent.ainvoke({"entries": ["old"]}, thread_id="t")
        for named in {"checkpoint_id": ""}, {"config": {"configurable": {"checkpoint_id": ""}}}:
            with pytest.raises(PendingInterruptError):
                await agent.ainvoke({"entries": ["new"]}, thread_id="t", **named)


async def test_new_input_may_abandon_a_question(storage: CheckpointerConfig) -> None:
    """The input begins anew, and its own questions are asked; what was said before is kept."""
    async with built(storage, ask("sure?")) as agent:
        for run in RUNS:
            thread = agent.thread(run.__name__)
            await thread.ainvoke({"entries": ["old"]})
            old = (await opened(thread))["sure?"]
            await run(thread, on_pending="abandon")
            new = (await opened(thread))["sure?"]
            assert new != old
            assert (await thread.aresume("yes"))["entries"] == ["old", "new", "sure? 'yes'"]


@pytest.mark.parametrize("on_pending", ["error", "abandon"])
async def test_where_nothing_is_open_new_input_runs(storage: CheckpointerConfig, on_pending: str) -> None:
    """On a thread that is new, and on one that is done."""
    async with built(storage, nothing) as agent:
        for run in RUNS:
            thread = agent.thread(run.__name__)
            await run(thread, on_pending=on_pending)
            await run(thread, on_pending=on_pending)
            assert await entries(thread) == ["new", "new"]


async def test_what_was_done_beside_an_abandoned_question_goes_with_it(storage: CheckpointerConfig) -> None:
    """The steps of its superstep begin anew, as in LangGraph."""
    times = iter(range(9))
    builder = side_by_side("sure?").add_node("beside", lambda state: {"entries": [f"beside {next(times)}"]})
    async with of_graph(storage, builder.add_edge(START, "beside")) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": ["one"]})
        await thread.ainvoke({"entries": ["two"]}, on_pending="abandon")
        await thread.aresume("yes")
        assert await entries(thread) == ["beside 1", "one", "sure? 'yes'", "two"]


async def test_what_to_do_with_a_question_is_one_of_two(storage: CheckpointerConfig) -> None:
    async with built(storage, nothing) as agent:
        with pytest.raises(ValueError, match="on_pending is 'error' or 'abandon', not 'abandom'"):
            await agent.ainvoke({}, thread_id="t", on_pending="abandom")  # type: ignore[arg-type]
        assert agent.thread("t").history() == []


async def test_a_run_that_failed_is_no_question(storage: CheckpointerConfig) -> None:
    """New input goes before it, as in LangGraph: what it had left to do is not done."""
    outage = Outage()

    def fragile(state: Log) -> Log:
        outage.strike()
        return {"entries": [f"done with {state['entries'][-1]}"]}

    async with built(storage, fragile) as agent:
        thread = agent.thread("t")
        with pytest.raises(ConnectionError):
            await thread.ainvoke({"entries": ["one"]})
        outage.over = True
        assert (await thread.ainvoke({"entries": ["two"]}))["entries"] == ["one", "two", "done with two"]
        with pytest.raises(NothingToResumeError):
            await thread.aresume()


async def test_a_branch_leaves_the_question_where_it_is(storage: CheckpointerConfig) -> None:
    """Input at a checkpoint overruns nothing; going on without input asks again."""
    async with built(storage, nothing, ask("sure?")) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": ["old"]})
        sure = (await opened(thread))["sure?"]
        assert (await thread.ainvoke(None))["__interrupt__"][0].id == sure
        start = (await thread.ahistory())[-1].config["configurable"]["checkpoint_id"]
        result = await thread.ainvoke({"entries": ["branch"]}, checkpoint_id=start)
        assert result["entries"] == ["branch"]
        assert (await opened(thread))["sure?"] != sure


async def test_a_question_that_was_given_up_can_be_answered_on_a_branch(storage: CheckpointerConfig) -> None:
    """An answered one cannot: LangGraph would drop the second answer. Run from there, it is asked anew."""
    async with built(storage, ask("sure?")) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({"entries": ["one"]})
        first = (await thread.astate()).config["configurable"]["checkpoint_id"]
        await thread.ainvoke({"entries": ["two"]}, on_pending="abandon")
        second = (await thread.astate()).config["configurable"]["checkpoint_id"]
        asked = (await opened(thread))["sure?"]
        assert (await thread.aresume("yes"))["entries"] == ["one", "two", "sure? 'yes'"]
        with pytest.raises(ClosedInterruptError, match="that answer stands"):
            await thread.aresume("no", asked, checkpoint_id=second)
        with pytest.raises(NothingToResumeError):
            await thread.aresume("no", checkpoint_id=second)
        assert (await thread.aresume("no", checkpoint_id=first))["entries"] == ["one", "sure? 'no'"]
        again = (await thread.ainvoke(None, checkpoint_id=second))["__interrupt__"][0]
        assert (await thread.aresume("no", again.id))["entries"] == ["one", "two", "sure? 'no'"]


PARALLEL = ["a?", "b?", "c?"]


def nested(*questions: str) -> StateGraph[Any, Any, Any, Any]:
    """The questions are asked at once in a graph within a graph, beside another one of the outer graph."""
    builder = StateGraph(Log).add_node("deep", side_by_side(*questions[1:]).compile()).add_edge(START, "deep")
    return builder.add_node("flat", ask(questions[0])).add_edge(START, "flat")


def sent(*questions: str) -> StateGraph[Any, Any, Any, Any]:
    """The same step asks them all, each in a task of its own."""

    def step(state: dict[str, str]) -> Log:
        return ask(state["question"])(state)  # type: ignore[no-any-return]

    def fan_out(state: Log) -> list[Send]:
        return [Send("step", {"question": question}) for question in questions]

    return StateGraph(Log).add_node("step", step).add_conditional_edges(START, fan_out, ["step"])


shapes = pytest.mark.parametrize("shape", [side_by_side, nested, sent], ids=lambda shape: shape.__name__)


@shapes
async def test_parallel_questions_are_answered_in_any_order(
    storage: CheckpointerConfig, shape: Callable[..., StateGraph[Any, Any, Any, Any]]
) -> None:
    """One at a time: each answer goes to its own question, and those that are left keep their ids."""
    async with of_graph(storage, shape(*PARALLEL)) as agent:
        for order in ("abc", "cba", "bca"):
            thread = agent.thread(order)
            await thread.ainvoke({})
            ids = await opened(thread)
            assert sorted(ids) == PARALLEL
            for done, letter in enumerate(order, start=1):
                if done < len(order):
                    with pytest.raises(InterruptIdRequiredError) as caught:
                        await thread.aresume("to whom?")
                    assert sorted(caught.value.questions) == sorted(
                        (id, question) for question, id in (await opened(thread)).items()
                    )
                await thread.aresume(letter.upper(), ids[f"{letter}?"])
                with pytest.raises(ClosedInterruptError):
                    await thread.aresume("again", ids[f"{letter}?"])
                assert await opened(thread) == {q: id for q, id in ids.items() if q[0] in order[done:]}
            assert await entries(thread) == ["a? 'A'", "b? 'B'", "c? 'C'"]


@shapes
async def test_parallel_questions_are_answered_at_once(
    storage: CheckpointerConfig, shape: Callable[..., StateGraph[Any, Any, Any, Any]]
) -> None:
    """All of them, or those that are named; what is falsy goes where it belongs too."""
    async with of_graph(storage, shape(*PARALLEL)) as agent:
        for way in ("answers", "value", "command", "stream"):
            thread = agent.thread(way)
            await thread.ainvoke({})
            ids = await opened(thread)
            answers = {ids["c?"]: None, ids["a?"]: 0}
            with pytest.raises(UnknownInterruptError, match=NOBODY):
                await thread.aresume({**answers, NOBODY: "x"})
            with pytest.raises(InterruptIdRequiredError):
                await thread.aresume(answers={})
            match way:
                case "answers":
                    await thread.aresume(answers=answers)
                case "value":
                    thread.resume(answers)
                case "command":
                    await agent.ainvoke(Command(resume=answers), thread_id=way)
                case "stream":
                    assert list(thread.stream_resume(answers=answers))
            assert await opened(thread) == {"b?": ids["b?"]}
            await thread.aresume(False)
            assert await entries(thread) == ["a? 0", "b? False", "c? None"]
            with pytest.raises(NothingToResumeError):
                await thread.aresume(answers={})


async def test_a_failed_sibling_leaves_questions_open(storage: CheckpointerConfig) -> None:
    """One step's answer is kept although it failed, another's question waits."""
    outage = Outage()

    def fragile(state: Log) -> Log:
        answer = interrupt("fragile?")
        outage.strike()
        return {"entries": [f"fragile? {answer!r}"]}

    builder = side_by_side("steady?").add_node("fragile", fragile).add_edge(START, "fragile")
    async with of_graph(storage, builder) as agent:
        thread = agent.thread("t")
        await thread.ainvoke({})
        with pytest.raises(ConnectionError):
            await thread.aresume("F", (await opened(thread))["fragile?"])
        assert list(await opened(thread)) == ["steady?"]
        outage.over = True
        await thread.aresume("S")
        assert await entries(thread) == ["fragile? 'F'", "steady? 'S'"]


async def test_errors_show_prompts_short_and_without_passwords(storage: CheckpointerConfig) -> None:
    """In words where the question has some."""
    long = "Shall I read postgresql://ada:hush@host/db,\nand then " + "go on and " * 50 + "on?"
    builder = side_by_side("plain?")
    for name, value in {"words": {"question": long, "password": "hush"}, "data": {"amount": 7}}.items():
        builder.add_node(name, lambda state, value=value: interrupt(value)).add_edge(START, name)
    async with of_graph(storage, builder) as agent:
        await agent.ainvoke({}, thread_id="t")
        with pytest.raises(PendingInterruptError, match="give up its questions") as caught:
            await agent.ainvoke({}, thread_id="t")
        prompts = sorted(prompt for _, prompt in caught.value.questions)
        assert prompts[1:] == ["plain?", "{'amount': 7}"]
        assert prompts[0].startswith("Shall I read postgresql://ada:***@host/db, and then go on")
        assert prompts[0].endswith("…")
        assert len(prompts[0]) == 100
        assert "hush" not in str(caught.value)


async def test_an_answer_that_is_not_allowed_leaves_the_question_open(storage: CheckpointerConfig) -> None:
    """In each face, and the answer that comes after it is taken."""
    async with AgentFactory(Log).add(nothing).with_approval().with_checkpointer(storage).build() as agent:
        for face in FACES:
            thread = agent.thread(face.__name__)
            await thread.ainvoke({"entries": ["begin"]})
            with pytest.raises(InvalidAnswerError, match=r"'maybe' does not answer the question: answer yes or no"):
                await face(thread, "maybe", None)
            assert len(await thread.ainterrupts()) == 1
            await face(thread, "yes", None)
            assert await entries(thread) == ["begin"]


async def test_a_steps_own_failure_of_validation_stays_itself(storage: CheckpointerConfig) -> None:
    """Only the refusal of an answer is an InvalidAnswerError."""

    def step(state: Log) -> Log:
        interrupt("sure?")
        TypeAdapter(int).validate_python("nonsense")
        return {}

    async with built(storage, step) as agent:
        await agent.ainvoke({}, thread_id="t")
        with pytest.raises(ValidationError, match="nonsense"):
            agent.thread("t").resume("yes")


async def test_a_command_keeps_what_else_it_says(storage: CheckpointerConfig) -> None:
    """An update beside the answer; a command without an answer is no new input."""
    async with built(storage, ask("sure?")) as agent:
        await agent.ainvoke({}, thread_id="t")
        asked: tuple[Interrupt, ...] = agent.thread("t").interrupts()
        result = await agent.ainvoke(Command(update={"entries": ["edited"]}), thread_id="t")
        assert result["__interrupt__"][0].id == asked[0].id
        result = await agent.ainvoke(Command(resume="yes", update={"entries": ["beside"]}), thread_id="t")
        assert sorted(result["entries"]) == ["beside", "edited", "sure? 'yes'"]


async def test_an_agent_that_keeps_nothing_takes_any_input() -> None:
    async with AgentFactory(Log).add(nothing).build() as agent:
        assert agent.invoke({"entries": ["x"]}, on_pending="error") == {"entries": ["x"]}
