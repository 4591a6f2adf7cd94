"""Branches on every storage: no head is lost to a rewind, names stand for checkpoints, and subgraphs go along."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from langgraph.types import interrupt

from petal.checkpoints import open_checkpointer
from petal.checkpoints.branches import LONGEST
from petal.checkpoints.lines import TWIN_OF
from petal.checkpoints.rewinding import arewind
from petal.core.agent import Agent, Thread
from petal.core.factory import AgentFactory
from petal.errors import (
    BranchExistsError,
    BranchNameError,
    BranchNotFoundError,
    CheckpointNotFoundError,
)


class Killed(Exception):
    """Stands for the end of the process."""


class Log(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


class Kept(TypedDict, total=False):
    said: Annotated[list[str], operator.add]
    calls: Annotated[list[int], operator.add]


class Within(TypedDict, total=False):
    said: Annotated[list[str], operator.add]
    inner_calls: Annotated[list[int], operator.add]


class Deltas(TypedDict, total=False):
    said: Annotated[list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w])]


@pytest.fixture(params=["memory", "sqlite", "postgres", "langgraph", "langgraph-sqlite"])
def saver(request: pytest.FixtureRequest) -> Iterator[BaseCheckpointSaver[Any]]:
    """Each of Petal's savers, LangGraph's own in memory, and its tables in a file."""
    with ExitStack() as stack:
        match request.param:
            case "memory":
                yield stack.enter_context(open_checkpointer("memory://"))
            case "sqlite":
                yield stack.enter_context(open_checkpointer(f"sqlite:///{request.getfixturevalue('tmp_path')}/b.db"))
            case "postgres":
                yield stack.enter_context(open_checkpointer(request.getfixturevalue("postgres_url")))
            case "langgraph":
                yield InMemorySaver()
            case _:
                url = f"sqlite:///{request.getfixturevalue('tmp_path')}/b.db"
                yield stack.enter_context(open_checkpointer(url, engine="langgraph"))


@pytest.fixture
def thread(saver: BaseCheckpointSaver[Any]) -> Iterator[Thread]:
    """A thread of three turns, of an agent whose step echoes."""
    with echoing(saver) as agent:
        thread = agent.thread("t")
        for word in ("one", "two", "three"):
            thread.invoke({"said": [word]})
        yield thread


def echoing(saver: BaseCheckpointSaver[Any], state: type = Log) -> Agent:
    def echo(state: Any) -> Log:
        return {"said": [state["said"][-1].upper()]}

    return AgentFactory(state).add(echo).with_checkpointer(saver).build()


def head(thread: Thread) -> str:
    return str(thread.state().config["configurable"]["checkpoint_id"])


def said(thread: Thread, at: str | None = None) -> list[str]:
    return list(thread.state(at).values.get("said", []))


ALL = ["one", "ONE", "two", "TWO", "three", "THREE"]


def test_a_rewind_keeps_the_old_head_under_a_name(thread: Thread) -> None:
    """It can be read, run on from, updated and gone back to by that name."""
    old = head(thread)
    assert thread.rewind(turns=2).values["said"] == ALL[:2]
    assert thread.state("before-rewind-1").config["configurable"]["checkpoint_id"] == old
    assert said(thread, "before-rewind-1") == ALL
    assert thread.invoke({"said": ["other"]})["said"] == [*ALL[:2], "other", "OTHER"]

    assert thread.invoke({"said": ["four"]}, checkpoint_id="before-rewind-1")["said"] == [*ALL, "four", "FOUR"]
    thread.update({"said": ["edited"]}, checkpoint_id="before-rewind-1")
    assert said(thread) == [*ALL, "edited"]
    assert thread.rewind(to="before-rewind-1", keep_as="edited").values["said"] == ALL
    assert thread.rewind(to="edited").values["said"] == [*ALL, "edited"]
    assert [branch.name for branch in thread.branches()] == ["before-rewind-1", "edited", "before-rewind-2"]


async def test_streams_run_on_from_a_name(thread: Thread) -> None:
    await thread.arewind()
    told = [part async for part in thread.astream({"said": ["x"]}, checkpoint_id="before-rewind-1")]
    assert told == [{"echo": {"said": ["X"]}}] == list(thread.stream({"said": ["x"]}, checkpoint_id="before-rewind-1"))
    assert (await thread.astate()).values["said"] == [*ALL, "x", "X"]
    with pytest.raises(BranchNotFoundError):
        await anext(thread.astream(None, checkpoint_id="before-rewind-9"))


def test_branches_tell_where_they_parted(thread: Thread) -> None:
    begun = datetime.now(UTC)
    parted, old = thread.lines()[0].checkpoints[6], head(thread)
    thread.name_branch("two", at=thread.lines()[0].checkpoints[3])
    thread.rewind(turns=2, keep_as="long")
    thread.invoke({"said": ["other"]})
    thread.name_branch("here")
    two, long, here = thread.branches()
    assert (long.name, long.checkpoint_id, long.why, long.is_head) == ("long", old, "rewind", False)
    assert (long.parted, long.turns, long.steps) == (parted, 2, 4)
    assert begun <= two.created <= long.created <= here.created <= datetime.now(UTC)
    assert (two.why, two.parted, two.turns, two.steps) == ("named", parted, 1, 2)
    assert (here.checkpoint_id, here.is_head) == (head(thread), True)
    assert (here.parted, here.turns, here.steps) == (head(thread), 0, 0)


def test_the_history_of_a_branch_is_its_line(thread: Thread) -> None:
    whole = thread.history()
    thread.rewind(turns=2, keep_as="old")
    assert [state.config for state in thread.history(branch="old")] == [state.config for state in whole]
    now = thread.history(branch=head(thread))
    assert [state.values.get("said", []) for state in now] == [["one", "ONE"], ["one"], []]
    assert now[0].metadata is not None
    assert now[0].metadata[TWIN_OF] == whole[6].config["configurable"]["checkpoint_id"]  # type: ignore[typeddict-item]
    assert len(thread.history()) == len(whole) + 1
    assert thread.history(branch="old", limit=2) == thread.history(before=head(thread), limit=2)
    assert thread.history(branch="old", limit=2, before="old")[0] == whole[1]._replace()
    with pytest.raises(CheckpointNotFoundError):
        thread.history(branch="1ef00000-0000-6000-8000-000000000000")


def test_each_head_has_a_line_of_its_own(thread: Thread) -> None:
    assert [line.parted for line in thread.lines()] == [None]
    old = thread.lines()[0].checkpoints
    thread.rewind(turns=2)
    thread.invoke({"said": ["other"]})
    thread.rewind(turns=1, keep_as="short")
    now, *others = thread.lines()
    assert (now.checkpoint_id, now.is_head, now.parted, len(now.checkpoints)) == (head(thread), True, None, 3)
    by_name = {line.names: line for line in others}
    assert set(by_name) == {("short",), ("before-rewind-1",)}
    assert len(by_name[("short",)].checkpoints) == 4
    assert by_name[("before-rewind-1",)].checkpoints == old[:7]
    assert by_name[("before-rewind-1",)].parted == old[6]
    every = [id for line in thread.lines() for id in line.checkpoints]
    assert sorted(every) == sorted(state.config["configurable"]["checkpoint_id"] for state in thread.history())


def test_names_are_given_and_taken_away(thread: Thread) -> None:
    middle = thread.lines()[0].checkpoints[4]
    thread.name_branch("draft", at=middle)
    thread.name_branch("draft", at=middle)
    thread.name_branch("same place", at="draft")
    thread.name_branch("ünïcode/ok")
    with pytest.raises(BranchExistsError, match=f"has a branch 'draft' already, at checkpoint '{middle}'"):
        thread.name_branch("draft")
    with pytest.raises(BranchExistsError):
        thread.rewind(keep_as="draft")
    with pytest.raises(CheckpointNotFoundError):
        thread.name_branch("nowhere", at="1ef00000-0000-6000-8000-000000000000")
    assert len(thread.history()) == 9
    assert [branch.name for branch in thread.branches()] == ["draft", "same place", "ünïcode/ok"]
    thread.drop_branch("draft")
    assert [branch.name for branch in thread.branches()] == ["same place", "ünïcode/ok"]
    with pytest.raises(BranchNotFoundError) as caught:
        thread.state("same plaice")
    assert str(caught.value) == (
        "Thread 't' has no checkpoint 'same plaice', and no branch of that name. "
        "Did you mean 'same place'? Known: same place, ünïcode/ok."
    )
    with pytest.raises(BranchNotFoundError):
        thread.drop_branch("draft")
    thread.name_branch("draft")
    assert said(thread, "draft") == ALL


@pytest.mark.parametrize("name", ["", "  ", " x", "a\nb", "x" * (LONGEST + 1), "1ef00000-0000-6000-8000-000000000000"])
def test_odd_names_are_refused(name: str) -> None:
    with echoing(InMemorySaver()) as agent:
        thread = agent.thread("t")
        thread.invoke({"said": ["one"]})
        thread.invoke({"said": ["two"]})
        before = thread.history()
        with pytest.raises(BranchNameError, match="can be no name of a branch: it "):
            thread.name_branch(name)
        with pytest.raises(BranchNameError):
            thread.rewind(keep_as=name)
        assert thread.history() == before


def test_numbers_of_rewinds_are_never_given_twice(thread: Thread) -> None:
    thread.name_branch("before-rewind-of-mine")
    thread.rewind()
    thread.drop_branch("before-rewind-1")
    thread.rewind()
    assert [branch.name for branch in thread.branches()] == ["before-rewind-of-mine", "before-rewind-2"]


def test_what_is_not_there_is_said(thread: Thread) -> None:
    nobody = thread.agent.thread("nobody")
    for act in (nobody.branches, nobody.lines, nobody.rewind, lambda: nobody.name_branch("x")):
        with pytest.raises(CheckpointNotFoundError, match="'nobody' has no checkpoints"):
            act()
    with pytest.raises(CheckpointNotFoundError, match="before its first turn"):
        thread.rewind(turns=3)
    with pytest.raises(CheckpointNotFoundError, match="before its first turn"):
        thread.rewind(turns=4)
    with pytest.raises(CheckpointNotFoundError):
        thread.rewind(to="1ef00000-0000-6000-8000-000000000000")
    with pytest.raises(BranchNotFoundError, match="Known: none"):
        thread.rewind(to="")
    assert thread.branches() == []


async def test_a_saver_rewinds_only_to_what_there_is(saver: BaseCheckpointSaver[Any]) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "nobody"}}
    with pytest.raises(CheckpointNotFoundError):
        await arewind(saver, config, "1ef00000-0000-6000-8000-000000000000")


def test_a_thread_with_ids_of_its_own(saver: BaseCheckpointSaver[Any]) -> None:
    """An id that is no UUID is found too, after the names."""
    with echoing(saver) as agent:
        thread = agent.thread("t")
        thread.invoke({"said": ["one"]})
        kept = saver.get_tuple(thread.config())
        assert kept is not None
        place: RunnableConfig = {"configurable": {"thread_id": "u", "checkpoint_ns": ""}}
        versions = kept.checkpoint["channel_versions"]
        saver.put(place, {**kept.checkpoint, "id": "1ef0"}, {"source": "loop", "step": 1}, versions)
        assert said(agent.thread("u"), "1ef0") == ["one", "ONE"]


def test_a_kill_after_the_naming_loses_nothing(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name comes first; alone it changes nothing, and the rewind can be done again."""

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("petal.core.thread.arewind", killed)
        with pytest.raises(Killed):
            thread.rewind()
    assert said(thread) == said(thread, "before-rewind-1") == ALL
    assert thread.rewind().values["said"] == ALL[:4]
    assert said(thread, "before-rewind-1") == said(thread, "before-rewind-2") == ALL


def test_a_rewind_counts_turns_as_they_were(thread: Thread) -> None:
    """What a rewind made stands for what it repeats, an input too."""
    inputs = [
        state.config["configurable"]["checkpoint_id"] for state in thread.history() if state.next == ("__start__",)
    ]
    thread.rewind(to=inputs[0])
    assert thread.state().next == ("__start__",)
    assert thread.rewind().values["said"] == ALL[:4]


FORKING = pytest.mark.parametrize("saver", ["memory", "sqlite", "postgres", "langgraph-sqlite"], indirect=True)
"""LangGraph's own saver cannot."""


@FORKING
def test_a_fork_takes_the_names_on_its_way_along(thread: Thread) -> None:
    ids = thread.lines()[0].checkpoints
    for name, at in (("early", ids[6]), ("there", ids[3]), ("late", ids[0]), ("gone", ids[3])):
        thread.name_branch(name, at=at)
    thread.drop_branch("gone")
    fork = thread.fork("there", to="what-if")
    assert [branch.name for branch in fork.branches()] == ["early", "there"]
    assert said(fork) == said(fork, "there") == said(thread, "there") == ALL[:4]
    fork.drop_branch("there")
    fork.rewind()
    assert [branch.name for branch in thread.branches()] == ["early", "there", "late"]
    copy = thread.copy("copy")
    assert [branch.name for branch in copy.branches()] == ["early", "there", "late"]


def counting(asks: bool = False, *, nested: bool = False, keeps: bool = True) -> Any:
    """A graph that knows how often it was called: it says so, and with `asks` first asks what to add."""

    def count(state: Kept) -> Kept:
        calls = state.get("calls", [])
        answer = interrupt(f"call {len(calls)}?") if asks and state["said"][-1].startswith("ask") else ""
        return {"calls": [len(calls)], "said": [f"call {len(calls)}{answer}"]}

    graph = StateGraph(Kept).add_node("count", count).add_edge("__start__", "count")
    if nested:
        graph.add_node("inner", within()).add_edge("count", "inner")
    return graph.compile(checkpointer=True if keeps else None)


def within() -> Any:
    """The same, deeper, with a count of its own."""

    def count(state: Within) -> Within:
        calls = state.get("inner_calls", [])
        return {"inner_calls": [len(calls)], "said": [f"call {len(calls)}"]}

    return StateGraph(Within).add_node("count", count).add_edge("__start__", "count").compile(checkpointer=True)


def outer(saver: BaseCheckpointSaver[Any], inner: Any) -> Agent:
    """An agent of a step, that graph, and another step."""

    def begin(state: Log) -> Log:
        return {}

    def last(state: Log) -> Log:
        return {}

    return AgentFactory(Log).add(begin).add(inner, node_name="counting").add(last).with_checkpointer(saver).build()


def calls(thread: Thread, word: str, **where: Any) -> list[str]:
    """What the graph within says of its calls when a turn is sent."""
    return new_calls(thread.invoke({"said": [word]}, **where), word)


def new_calls(result: Any, word: str) -> list[str]:
    """Those since the last time that a word was said; a graph that shares a key says again what it was told."""
    said = list(result["said"])
    since = said[len(said) - said[::-1].index(word) :]
    return [each for each in since if each.startswith("call")]


def test_a_rewind_brings_back_what_subgraphs_had_reached(saver: BaseCheckpointSaver[Any]) -> None:
    """A graph that keeps a state of its own knows only of what came before the state that was gone back to."""
    with outer(saver, counting()) as agent:
        thread = agent.thread("t")
        for number in range(4):
            assert calls(thread, str(number))[-1] == f"call {number}"
        thread.rewind(turns=2)
        assert calls(thread, "again")[-1] == "call 2"
        thread.rewind(to="before-rewind-1")
        assert calls(thread, "on")[-1] == "call 4"
        thread.rewind(turns=1)
        assert calls(thread, "on")[-1] == "call 4"
        thread.rewind(to="before-rewind-2")
        thread.rewind(turns=2)
        assert calls(thread, "on")[-1] == "call 1"


def test_a_rewind_to_before_its_first_call_makes_a_subgraph_forget(saver: BaseCheckpointSaver[Any]) -> None:
    with outer(saver, counting()) as agent:
        thread = agent.thread("t")
        thread.update({"said": ["set"]}, as_node="last")
        assert calls(thread, "0")[-1] == "call 0"
        assert calls(thread, "1")[-1] == "call 1"
        assert thread.rewind(turns=2).values["said"] == ["set"]
        assert calls(thread, "0")[-1] == "call 0"
        assert calls(thread, "1")[-1] == "call 1"
        thread.rewind(turns=1)
        assert calls(thread, "1")[-1] == "call 1"


def test_graphs_within_graphs_go_along(saver: BaseCheckpointSaver[Any]) -> None:
    with outer(saver, counting(nested=True)) as agent:
        thread = agent.thread("t")
        for number in range(3):
            assert calls(thread, str(number)) == [f"call {number}"] * 2
        thread.rewind(turns=2)
        assert calls(thread, "again") == ["call 1"] * 2
        thread.rewind(to="before-rewind-1")
        assert calls(thread, "on") == ["call 3"] * 2


@pytest.mark.parametrize("keeps", [True, False], ids=["keeping", "forgetting"])
def test_a_question_of_a_subgraph_is_asked_again(saver: BaseCheckpointSaver[Any], keeps: bool) -> None:
    """Where its thread goes on from the head that was left, or answered there."""
    with outer(saver, counting(asks=True, keeps=keeps)) as agent:
        thread = agent.thread("t")
        number = 1 if keeps else 0
        assert calls(thread, "0") == ["call 0"]
        assert [question.value for question in thread.invoke({"said": ["ask"]})["__interrupt__"]] == [f"call {number}?"]
        thread.rewind(turns=1, keep_as="asking")
        assert thread.interrupts() == ()
        assert calls(thread, "other") == [f"call {number}"]
        assert [question.value for question in thread.state("asking").interrupts] == [f"call {number}?"]

        thread.rewind(to="asking")
        assert (thread.interrupts(), thread.state().next) == ((), ("counting",))
        assert [question.value for question in thread.resume()["__interrupt__"]] == [f"call {number}?"]
        assert new_calls(thread.resume("!"), "ask") == [f"call {number}!"]
        assert calls(thread, "on") == [f"call {2 if keeps else 0}"]


@FORKING
@pytest.mark.parametrize("keeps", [True, False], ids=["keeping", "forgetting"])
def test_a_fork_brings_subgraphs_and_their_questions(saver: BaseCheckpointSaver[Any], keeps: bool) -> None:
    """At the newest checkpoint and at a head that was left; in the middle of a turn, of graphs that keep nothing."""
    with outer(saver, counting(asks=True, keeps=keeps)) as agent:
        thread = agent.thread("t")
        later = [1, 2] if keeps else [0, 0]
        calls(thread, "0")
        thread.invoke({"said": ["ask"]})
        waiting = head(thread)
        fork = thread.fork(to="newest")
        assert [question.value for question in fork.interrupts()] == [f"call {later[0]}?"]
        assert new_calls(fork.resume("!"), "ask") == [f"call {later[0]}!"]
        assert calls(fork, "on") == [f"call {later[1]}"]

        thread.rewind(turns=1, keep_as="asking")
        assert calls(thread, "other") == [f"call {later[0]}"]
        fork = thread.fork("asking", to="left")
        assert [question.value for question in fork.interrupts()] == [f"call {later[0]}?"]
        assert new_calls(fork.resume("?"), "ask") == [f"call {later[0]}?"]

        if keeps:
            return
        thread.rewind(to="asking")
        thread.resume()
        thread.resume("!")
        middle = next(state for state in thread.history() if state.next == ("counting",))
        assert head(thread.fork(waiting, to="waiting")) == waiting
        fork = thread.fork(middle.config["configurable"]["checkpoint_id"], to="middle")
        assert fork.interrupts() == ()
        assert [question.value for question in fork.resume()["__interrupt__"]] == ["call 0?"]
        assert new_calls(fork.resume("#"), "ask") == ["call 0#"]
        assert calls(fork, "on") == ["call 0"]


def test_a_rewind_to_the_middle_of_a_turn_goes_on_from_there(saver: BaseCheckpointSaver[Any]) -> None:
    """A graph within that was called there begins that call anew."""
    with outer(saver, counting()) as agent:
        thread = agent.thread("t")
        for number in range(3):
            calls(thread, str(number))
        middle = [state for state in thread.history() if state.next == ("counting",)][1]
        thread.rewind(to=middle.config["configurable"]["checkpoint_id"])
        assert new_calls(thread.resume(), "1") == ["call 1"]
        assert calls(thread, "on") == ["call 2"]


def test_values_that_are_rebuilt_from_writes_are_the_same_after_a_rewind(saver: BaseCheckpointSaver[Any]) -> None:
    with echoing(saver, Deltas) as agent:
        thread = agent.thread("t")
        for word in ("one", "two", "three"):
            thread.invoke({"said": [word]})
        assert thread.rewind(turns=2).values["said"] == ALL[:2]
        assert thread.invoke({"said": ["x"]})["said"] == [*ALL[:2], "x", "X"]
        assert thread.rewind(to="before-rewind-1").values["said"] == ALL
        assert said(thread, "before-rewind-2") == [*ALL[:2], "x", "X"]
