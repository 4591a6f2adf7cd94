"""Branches on every storage: no head is lost to a rewind, names stand for checkpoints, and subgraphs go along."""

from __future__ import annotations

import base64
import operator
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph import StateGraph
from langgraph.types import interrupt

from petal.checkpoints import PetalSaver, lines, open_checkpointer
from petal.checkpoints.branches import LONGEST, names_in
from petal.checkpoints.leases import LEASE
from petal.checkpoints.lines import Tree
from petal.checkpoints.notes import Note
from petal.checkpoints.rewinding import arewind
from petal.checkpoints.threads import TWIN_OF, CheckpointInfo
from petal.core.agent import Agent, Thread
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import (
    BranchExistsError,
    BranchNameError,
    BranchNotFoundError,
    CheckpointConflictError,
    CheckpointCorruptionError,
    CheckpointerError,
    CheckpointNotFoundError,
    TooFewTurnsError,
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


class Deep(TypedDict, total=False):
    said: Annotated[list[str], operator.add]
    deep: Annotated[list[int], operator.add]


class Deltas(TypedDict, total=False):
    said: Annotated[list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w])]


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


def test_a_name_is_text(thread: Thread) -> None:
    name: Any = 3
    with pytest.raises(BranchNameError, match="3 can be no name of a branch: it is no text"):
        thread.name_branch(name)


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
    for turns in (3, 4):
        with pytest.raises(TooFewTurnsError, match=f"2 turns can be taken back, not {turns};") as refused:
            thread.rewind(turns=turns)
        assert (refused.value.turns, refused.value.most) == (turns, 2)
    with pytest.raises(CheckpointNotFoundError):
        thread.rewind(to="1ef00000-0000-6000-8000-000000000000")
    with pytest.raises(BranchNotFoundError, match="None of its checkpoints has a name"):
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
        patch.setattr("petal.core.branching.arewind", killed)
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
    """A graph that says how often it was called; it may ask what to add, and another one may follow."""

    def count(state: Any) -> Any:
        calls = state.get("calls", [])
        answer = interrupt(f"call {len(calls)}?") if asks and state["said"][-1] == "ask" else ""
        return {"calls": [len(calls)], "said": [f"call {len(calls)}{answer}"]}

    def deeper(state: Any) -> Any:
        calls = state.get("deep", [])
        return {"deep": [len(calls)], "said": [f"call {len(calls)}"]}

    graph = StateGraph(Kept).add_node("count", count).add_edge("__start__", "count")
    if nested:
        deep = StateGraph(Deep).add_node("deeper", deeper).add_edge("__start__", "deeper")
        graph.add_node("inner", deep.compile(checkpointer=True)).add_edge("count", "inner")
    return graph.compile(checkpointer=True if keeps else None)


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
            assert calls(thread, str(number))[-1] == f"call {number}"
        thread.rewind(turns=2)
        assert calls(thread, "again")[-1] == "call 1"
        thread.rewind(to="before-rewind-1")
        assert calls(thread, "on")[-1] == "call 3"


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
    """At the newest checkpoint, at a head that was left, and in the middle of a turn in which they were answered."""
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

        thread.rewind(to="asking")
        thread.resume()
        thread.resume("!")
        middle = next(state for state in thread.history() if state.next == ("counting",))
        assert head(thread.fork(waiting, to="waiting")) == waiting
        fork = thread.fork(middle.config["configurable"]["checkpoint_id"], to="middle")
        assert fork.interrupts() == ()
        assert [question.value for question in fork.resume()["__interrupt__"]] == [f"call {later[0]}?"]
        assert new_calls(fork.resume("#"), "ask") == [f"call {later[0]}#"]
        assert calls(fork, "on") == [f"call {later[1]}"]


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


def test_a_rewind_to_what_a_rewind_repeated_asks_again(saver: BaseCheckpointSaver[Any]) -> None:
    """Though it was answered and gone on from since."""
    with outer(saver, counting(asks=True)) as agent:
        thread = agent.thread("t")
        calls(thread, "0")
        thread.invoke({"said": ["ask"]})
        thread.rewind(turns=1, keep_as="asking")
        thread.rewind(to="asking")
        repeated = head(thread)
        for answer in "!?":
            assert [question.value for question in thread.resume()["__interrupt__"]] == ["call 1?"]
            assert new_calls(thread.resume(answer), "ask") == [f"call 1{answer}"]
            assert calls(thread, "on") == ["call 2"]
            thread.rewind(to=repeated)


def heads_of(thread: Thread, turns: int) -> list[str]:
    """The newest checkpoint after each of some turns."""
    heads = []
    for number in range(turns):
        assert calls(thread, str(number))[-1] == f"call {number}"
        heads.append(head(thread))
    return heads


@pytest.mark.parametrize("nested", [False, True], ids=["within", "twice-within"])
def test_input_at_an_earlier_checkpoint_finds_subgraphs_as_they_were(
    saver: BaseCheckpointSaver[Any], nested: bool
) -> None:
    """And the branch goes on with them, whichever line was the last one."""
    with outer(saver, counting(nested=nested)) as agent:
        thread = agent.thread("t")
        heads = heads_of(thread, 4)
        assert calls(thread, "short", checkpoint_id=heads[0])[-1] == "call 1"
        short = head(thread)
        assert calls(thread, "other", checkpoint_id=heads[1])[-1] == "call 2"
        assert calls(thread, "on")[-1] == "call 3"
        thread.name_branch("other")
        assert [line.checkpoint_id for line in thread.lines()] == [head(thread), short, heads[3]]
        assert calls(thread, "long", checkpoint_id=heads[3])[-1] == "call 4"
        assert calls(thread, "short", checkpoint_id=short)[-1] == "call 2"
        assert calls(thread, "on", checkpoint_id="other")[-1] == "call 4"
        assert calls(thread, "first", checkpoint_id=heads[0])[-1] == "call 1"
        assert calls(thread, "on")[-1] == "call 2"


def test_an_update_of_an_earlier_checkpoint_finds_subgraphs_as_they_were(saver: BaseCheckpointSaver[Any]) -> None:
    with outer(saver, counting()) as agent:
        thread = agent.thread("t")
        heads = heads_of(thread, 3)
        thread.update({"said": ["edited"]}, as_node="last", checkpoint_id=heads[0])
        assert calls(thread, "on")[-1] == "call 1"
        thread.update({"said": ["edited"]}, as_node="last", checkpoint_id=heads[2])
        assert calls(thread, "on")[-1] == "call 3"
        middle = [state for state in thread.history() if state.next == ("last",)][-1]
        thread.update({"said": ["edited"]}, checkpoint_id=middle.config["configurable"]["checkpoint_id"])
        assert new_calls(thread.resume(), "edited") == []
        assert calls(thread, "on")[-1] == "call 1"


def test_a_replay_of_an_earlier_checkpoint_calls_subgraphs_anew(saver: BaseCheckpointSaver[Any]) -> None:
    with outer(saver, counting()) as agent:
        thread = agent.thread("t")
        heads_of(thread, 3)
        middle = [state for state in thread.history() if state.next == ("counting",)][1]
        for _ in range(2):
            replayed = thread.resume(checkpoint_id=middle.config["configurable"]["checkpoint_id"])
            assert new_calls(replayed, "1")[-1] == "call 1"
            assert calls(thread, "on")[-1] == "call 2"


def asking_twice() -> Any:
    """A graph that keeps its state, and asks two things in a row in its second step."""

    def ask(state: Any) -> Any:
        calls = len(state.get("calls", []))
        answers = "".join(interrupt(f"{part} of call {calls}?") for part in "ab") if state["said"][-1] == "ask" else ""
        return {"calls": [calls], "said": [f"call {calls}{answers}"]}

    graph = StateGraph(Kept).add_node("before", lambda state: {}).add_node("ask", ask)
    return graph.add_edge("__start__", "before").add_edge("before", "ask").compile(checkpointer=True)


def test_a_question_that_was_given_up_is_answered_where_it_was_asked(saver: BaseCheckpointSaver[Any]) -> None:
    """The graph that asked it goes on from there, and knows of nothing that came later."""
    with outer(saver, asking_twice()) as agent:
        thread = agent.thread("t")
        assert calls(thread, "0") == ["call 0"]
        thread.invoke({"said": ["ask"]})
        asking, (first,) = head(thread), thread.interrupts()
        thread.invoke({"said": ["other"]}, on_pending="abandon")
        assert calls(thread, "on")[-1] == "call 2"
        old = head(thread)

        second = thread.resume("x", first.id, checkpoint_id=asking)["__interrupt__"][0]
        assert (first.value, second.value) == ("a of call 1?", "b of call 1?")
        assert new_calls(thread.resume("y", second.id, checkpoint_id=asking), "ask") == ["call 1xy"]
        assert calls(thread, "on")[-1] == "call 2"
        assert calls(thread, "on", checkpoint_id=old)[-1] == "call 3"
        assert calls(thread, "anew", checkpoint_id=asking)[-1] == "call 1"


def both(saver: BaseCheckpointSaver[Any]) -> Agent:
    """An agent that asks itself, beside a graph that keeps a state; one that follows keeps a state too."""

    def ask(state: Log) -> Log:
        return {"said": [interrupt("Which?")]} if state["said"][-1] == "ask" else {}

    factory = AgentFactory(Log).add(lambda state: {}, node_name="begin")
    factory.with_condition(lambda state: ["ask", "beside"], {"ask": "ask", "beside": "beside"})
    factory.add(ask).with_next("after").add(counting(), node_name="beside").with_next("after")
    return factory.add(counting(nested=True), node_name="after").with_checkpointer(saver).build()


def test_graphs_beside_a_question_are_as_they_were_when_it_is_answered_later(saver: BaseCheckpointSaver[Any]) -> None:
    with both(saver) as agent:
        thread = agent.thread("t")
        assert calls(thread, "0")[-1] == "call 0"
        thread.invoke({"said": ["ask"]})
        asking = head(thread)
        thread.invoke({"said": ["other"]}, on_pending="abandon")
        assert calls(thread, "on")[-1] == "call 2"
        for answer in "!?":
            thread.rewind(to=asking, keep_as=f"before {answer}")
            thread.resume()
            asking = head(thread)
            thread.invoke({"said": ["other"]}, on_pending="abandon")
            assert new_calls(thread.resume(answer, checkpoint_id=asking), answer)[-1] == "call 1"
            assert calls(thread, "on")[-1] == "call 2"


@FORKING
def test_a_fork_leaves_an_answer_of_another_line_behind(saver: BaseCheckpointSaver[Any]) -> None:
    with outer(saver, counting(asks=True)) as agent:
        thread = agent.thread("t")
        thread.invoke({"said": ["ask"]})
        asking = head(thread)
        thread.invoke({"said": ["other"]}, on_pending="abandon")
        begun = next(state for state in thread.history() if state.next == ("__start__",))
        assert new_calls(thread.resume("!", checkpoint_id=asking), "ask") == ["call 0!"]
        fork = thread.fork(begun.config["configurable"]["checkpoint_id"], to="fork")
        assert new_calls(fork.resume(), "other") == ["call 0"]


def test_nothing_is_repeated_where_no_graph_within_needs_it(
    saver: BaseCheckpointSaver[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anything looked up in threads of agents that have no such graph."""
    with outer(saver, counting()) as agent:
        thread = agent.thread("t")
        heads = heads_of(thread, 2)
        thread.invoke({"said": ["on"]}, checkpoint_id=heads[-1])
        thread.update({"said": ["edited"]}, as_node="last", checkpoint_id=head(thread))
        assert not any(TWIN_OF in (state.metadata or {}) for state in thread.history())
        bare = agent.thread("bare")
        bare.update({"said": ["set"]}, as_node="last")
        first = head(bare)
        bare.update({"said": ["set"]}, as_node="last")
        bare.update({"said": ["edited"]}, as_node="last", checkpoint_id=first)
        assert len(bare.history()) == 3
    monkeypatch.delattr("petal.core.departures.aoutlines")
    with outer(saver, counting(keeps=False)) as agent:
        thread = agent.thread("u")
        calls(thread, "0")
        first = head(thread)
        calls(thread, "1")
        assert calls(thread, "2", checkpoint_id=first)[-1] == "call 0"
        assert len(thread.lines()) == 2


def test_values_that_are_rebuilt_from_writes_are_the_same_after_a_rewind(saver: BaseCheckpointSaver[Any]) -> None:
    with echoing(saver, Deltas) as agent:
        thread = agent.thread("t")
        for word in ("one", "two", "three"):
            thread.invoke({"said": [word]})
        assert thread.rewind(turns=2).values["said"] == ALL[:2]
        assert thread.invoke({"said": ["x"]})["said"] == [*ALL[:2], "x", "X"]
        assert thread.rewind(to="before-rewind-1").values["said"] == ALL
        assert said(thread, "before-rewind-2") == [*ALL[:2], "x", "X"]


@pytest.fixture
def petal(storage: CheckpointerConfig) -> Iterator[PetalSaver]:
    with open_checkpointer(storage) as saver:
        assert isinstance(saver, PetalSaver)
        yield saver


def test_a_rewind_is_done_whole_or_not_at_all(petal: PetalSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread and the graphs within go back in one transaction."""
    with outer(petal, counting()) as agent:
        thread = agent.thread("t")
        for number in range(3):
            calls(thread, str(number))
        before, made = petal.checkpoints("t", 100, ns=None), type(petal._rows).twin

        def failing(rows: Any, row: Any, *rest: Any) -> Any:
            if not row.ns:
                raise Killed
            return made(rows, row, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(type(petal._rows), "twin", failing)
            with pytest.raises(Killed):
                thread.rewind()
        assert petal.checkpoints("t", 100, ns=None) == before
        assert calls(thread, "on")[-1] == "call 3"
        assert petal.verify("t") == []
        assert petal.threads()[0].checkpoints == len(petal.checkpoints("t", 100, ns=None))


def test_an_update_that_fails_changes_nothing(petal: PetalSaver) -> None:
    with outer(petal, counting()) as agent:
        thread = agent.thread("t")
        heads = heads_of(thread, 3)
        before = petal.checkpoints("t", 100, ns=None)
        with pytest.raises(InvalidUpdateError):
            thread.update({"said": ["edited"]}, as_node="nobody", checkpoint_id=heads[0])
        assert petal.checkpoints("t", 100, ns=None) == before
        with pytest.raises(InvalidUpdateError):
            thread.update({"said": ["edited"]}, as_node="nobody")
        assert petal.verify() == []
        assert calls(thread, "on")[-1] == "call 3"


def test_who_lost_the_thread_cannot_rewind_it(petal: PetalSaver) -> None:
    with echoing(petal) as agent:
        thread = agent.thread("t")
        thread.invoke({"said": ["one"]})
        config: RunnableConfig = {"configurable": {"thread_id": "t", LEASE: "somebody"}}
        with pytest.raises(CheckpointConflictError, match="no longer has thread 't'"):
            petal.rewind_thread(config, head(thread))
        petal.rewind_thread({"configurable": {"thread_id": "t"}}, thread.lines()[0].checkpoints[1])
        assert (thread.state().next, petal.threads()[0].status) == (("echo",), "unfinished")


def test_named_heads_outlive_every_rule(petal: PetalSaver) -> None:
    """With what their graphs within had reached, until the name is dropped."""
    with outer(petal, counting()) as agent:
        thread = agent.thread("t")
        for number in range(4):
            calls(thread, str(number))
        thread.rewind(turns=2, keep_as="old")
        calls(thread, "other")
        for rules in ({"keep_last": 1}, {"max_age": 1e-6}, {"max_bytes": 1}, {"max_idle": 1e-6}):
            thread.prune(**rules)
            assert [branch.name for branch in thread.branches()] == ["old"]
        assert thread.prune(keep_last=1, dry_run=True).checkpoints == 0  # type: ignore[union-attr]
        thread.prune()
        assert len(thread.history()) == 2
        fork = thread.fork("old", to="fork")
        assert calls(fork, "on")[-1] == "call 4"
        assert calls(thread, "on")[-1] == "call 3"
        thread.rewind(to="old", keep_as="new")
        assert calls(thread, "on")[-1] == "call 4"
        assert petal.verify() == []

        for name in ("old", "new"):
            thread.drop_branch(name)
        thread.prune(keep_last=1)
        assert len(thread.history()) == 1
        assert calls(thread, "on")[-1] == "call 5"
        thread.name_branch("pin")
        thread.drop_branch("pin")
        assert thread.prune(max_idle=1e-6).threads[0].whole  # type: ignore[union-attr]


def test_a_name_that_a_rewind_gave_keeps_no_idle_thread(petal: PetalSaver) -> None:
    """It holds against all other rules; one that somebody gave holds against all, be it by `keep_as` or anew."""
    with echoing(petal) as agent:

        def rewound(name: str, keep_as: str | None = None) -> Thread:
            thread = agent.thread(name)
            for word in ("one", "two"):
                thread.invoke({"said": [word]})
            thread.rewind(keep_as=keep_as)
            return thread

        by_itself, named, again = (rewound(name) for name in ("by itself", "named", "again"))
        chosen = rewound("chosen", "before-rewind-1")
        named.name_branch("pin", at="before-rewind-1")
        again.name_branch("before-rewind-1", at="before-rewind-1")
        fork = by_itself.fork("before-rewind-1", to="fork")
        for thread in (by_itself, fork):
            for rules in ({"keep_last": 1}, {"max_age": 1e-6}, {"max_bytes": 1}):
                thread.prune(**rules)
                assert said(thread, "before-rewind-1") == ALL[:4]
        for thread in (chosen, named, again):
            thread.prune(max_idle=1e-6)
            assert said(thread, "before-rewind-1") == ALL[:4]
        for thread in (by_itself, fork):
            assert thread.prune(max_idle=1e-6).threads[0].whole  # type: ignore[union-attr]
        named.drop_branch("pin")
        again.drop_branch("before-rewind-1")
        again.name_branch("before-rewind-1")
        named.prune(max_idle=1e-6)
        again.prune(max_idle=1e-6)
        assert sorted(info.thread_id for info in petal.threads()) == ["again", "chosen"]


def test_a_name_that_cannot_be_read_keeps_the_thread(petal: PetalSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prune leaves what it cannot judge."""
    with echoing(petal) as agent:
        thread = agent.thread("t")
        for word in ("one", "two"):
            thread.invoke({"said": [word]})
        thread.rewind()

        def damaged(*_: object) -> None:
            raise CheckpointCorruptionError("a write", "its checksum is wrong")

        with monkeypatch.context() as patch:
            patch.setattr(type(petal._rows), "write", damaged)
            report = thread.prune(keep_last=1)
        assert report is not None
        assert [thread_id for thread_id, _ in report.damaged] == ["t"]


def test_forks_are_refused_by_a_saver_that_has_none() -> None:
    with echoing(InMemorySaver()) as agent:
        thread = agent.thread("t")
        thread.invoke({"said": ["one"]})
        with pytest.raises(CheckpointerError, match="has no afork_thread"):
            thread.fork()


def note(key: str, name: str, at: str, *, dropped: bool = False) -> Note:
    value = {"name": name, "time": "2026-01-01T00:00:00+00:00", "why": "named", "dropped": dropped}
    return Note("t", "", at, key, value)


def test_the_last_word_on_a_name_counts() -> None:
    """Two that were given at once too, on two machines."""
    given = [note("3", "a", "z"), note("1", "a", "y"), note("2", "b", "x"), note("4", "b", "x", dropped=True)]
    assert {name: found.checkpoint_id for name, found in names_in(given).items()} == {"a": "z"}
    assert {*names_in([*given, note("5", "b", "w")])} == {"a", "b"}


def info(id: str, parent: str | None, source: str = "loop") -> CheckpointInfo:
    return CheckpointInfo("t", "", id, parent, "2026-01-01T00:00:00+00:00", {"source": source}, ())


def test_a_way_ends_where_its_past_is_gone_or_begins_anew() -> None:
    """A parent that was pruned, and parents that name each other."""
    assert [each.checkpoint_id for each in Tree([info("2", "1"), info("3", "2")]).path("3")] == ["3", "2"]
    assert [each.checkpoint_id for each in Tree([info("1", "2"), info("2", "1")]).path("2")] == ["2", "1"]
    assert Tree([info("2", "1", "input")]).before_inputs() == []
    assert Tree([info("1", None), info("2", "1", "input")]).before_inputs() == ["1"]


@pytest.mark.parametrize("page", [1, 2])
def test_lines_are_the_same_in_pages_of_any_size(thread: Thread, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    thread.rewind(keep_as="old")
    whole = thread.lines()
    monkeypatch.setattr(lines, "_PAGE", page)
    assert thread.lines() == whole
    assert len(whole) > 1


def test_lines_that_have_nothing_in_common(petal: PetalSaver) -> None:
    """After a prune there are heads without a past."""
    with echoing(petal) as agent:
        thread = agent.thread("t")
        for word in ("one", "two"):
            thread.invoke({"said": [word]})
        thread.rewind()
        thread.prune(keep_last=1)
        assert [(line.names, line.parted) for line in thread.lines()] == [((), None), (("before-rewind-1",), None)]
        assert thread.branches()[0].parted is None


async def test_a_rewind_of_encrypted_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRANCH_KEY", "k1:" + base64.b64encode(bytes(32)).decode())
    with open_checkpointer("memory://", encryption_key_env="BRANCH_KEY") as saver, echoing(saver) as agent:
        thread = agent.thread("t")
        for word in ("one", "two"):
            await thread.ainvoke({"said": [word]})
        await thread.arewind(keep_as="secret")
        assert (await thread.astate("secret")).values["said"] == ALL[:4]
        assert (await thread.astate()).values["said"] == ALL[:2]
