"""Dry runs: effects are answered from what was recorded, and nothing happens."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

import petal
from petal.core.agent import Agent, Thread
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import EffectNotRecordedError


class Log(TypedDict, total=False):
    entries: Annotated[list[Any], operator.add]


@pytest.fixture
def acts() -> list[str]:
    return []


def built(storage: Any, acts: list[str], ask: bool = False) -> Agent:
    """An agent that throws dice three times, one step each, with the same arguments."""

    def throw(state: Log) -> Log:
        thrown = petal.step("throw", _throw)
        return {"entries": [thrown, interrupt("ok?")] if ask else [thrown]}

    def _throw() -> str:
        acts.append("thrown")
        return f"dice {len(acts)}"

    factory = AgentFactory(Log)
    for name in ("first", "second", "third"):
        factory.add(throw, name)
    return factory.with_checkpointer(storage).build()


def before(thread: Thread, step: str) -> str:
    """The newest checkpoint from which a step ran."""
    found = next(one for one in thread.history() if one.next == (step,))
    return str(found.config["configurable"]["checkpoint_id"])


def test_a_replay_finds_what_was_done(storage: CheckpointerConfig, acts: list[str]) -> None:
    with built(storage, acts) as agent:
        thread = agent.thread("t")
        first = thread.invoke({"entries": []})
        assert first == {"entries": ["dice 1", "dice 2", "dice 3"]}
        at = before(thread, "first")
        assert thread.invoke(None, checkpoint_id=at, replay="dry") == first
        again = thread.invoke(None, checkpoint_id=at)
        assert again == {"entries": ["dice 4", "dice 5", "dice 6"]}
        assert thread.invoke(None, checkpoint_id=at, replay="dry") == again
        assert len(acts) == 6
        replayed = [call for call in thread.tool_calls() if call.replayed]
        assert [call.result for call in replayed] == [f"dice {n}" for n in (1, 2, 3, 4, 5, 6)]


def test_graphs_that_keep_a_state_find_what_they_did(storage: CheckpointerConfig, acts: list[str]) -> None:
    """A replay is answered dry; an answer to a question that was given up finds what was done before it was asked."""

    def throw(state: Log) -> Log:
        return {
            "entries": [petal.step("throw", _throw), *([interrupt("ok?")] if state["entries"][-1] == "ask" else [])]
        }

    def _throw() -> str:
        acts.append("thrown")
        return f"dice {len(acts)}"

    keeping = StateGraph(Log).add_node("throw", throw).add_edge(START, "throw").compile(checkpointer=True)
    with AgentFactory(Log).add(keeping, node_name="keeping").with_checkpointer(storage).build() as agent:
        thread = agent.thread("t")
        assert thread.invoke({"entries": ["a"]})["entries"][-1] == "dice 1"
        assert thread.invoke({"entries": ["b"]})["entries"][-1] == "dice 2"
        replayed = thread.invoke(None, checkpoint_id=before(thread, "keeping"), replay="dry")
        assert replayed["entries"][-1] == "dice 2"
        thread.invoke({"entries": ["ask"]})
        asking = before(thread, "keeping")
        assert thread.invoke({"entries": ["c"]}, on_pending="abandon")["entries"][-1] == "dice 4"
        assert thread.resume("yes", checkpoint_id=asking)["entries"][-2:] == ["dice 3", "yes"]
        assert len(acts) == 4


def test_a_fork_finds_what_was_done_on_its_source(storage: CheckpointerConfig, acts: list[str]) -> None:
    with built(storage, acts) as agent:
        thread = agent.thread("t")
        done = thread.invoke({"entries": []})
        fork = thread.fork(before(thread, "second"), to="u")
        assert list(fork.stream(None, replay="dry", stream_mode="values"))[-1] == done
        again = fork.fork(before(fork, "third"), to="v")
        assert again.resume(replay="dry") == done
        assert len(acts) == 3


def test_a_rewound_thread_finds_what_was_done(storage: CheckpointerConfig, acts: list[str]) -> None:
    with built(storage, acts) as agent:
        thread = agent.thread("t")
        done = thread.invoke({"entries": []})
        thread.rewind(to=before(thread, "first"))
        assert thread.resume(replay="dry") == done
        assert len(acts) == 3


def test_what_was_answered_dry_stays_answered(acts: list[str]) -> None:
    with built("memory://", acts, ask=True) as agent:
        thread = agent.thread("t")
        thread.invoke({"entries": []})
        thread.resume("a")
        thread.invoke(None, checkpoint_id=before(thread, "first"), replay="dry")
        assert len(acts) == 2
        thread.resume("b")
        assert thread.state().values == {"entries": ["dice 1", "b"]}
        assert len(acts) == 3


def test_what_was_never_done_is_not_done_now(acts: list[str]) -> None:
    with built("memory://", acts) as agent:
        thread = agent.thread("t")
        with pytest.raises(EffectNotRecordedError) as failed:
            thread.invoke({"entries": []}, replay="dry")
        assert str(failed.value) == (
            "'throw' with no arguments cannot be answered from the record: nothing like it is on record. Nothing was "
            "called; run on without replay='dry' to call it."
        )
        assert acts == []
        thread.resume()
        with pytest.raises(EffectNotRecordedError):
            thread.invoke({"entries": []}, replay="dry", checkpoint_id=before(thread, "third"))


def test_what_failed_or_is_unknown_is_no_answer(acts: list[str]) -> None:
    class Killed(BaseException):
        pass

    error: list[type[BaseException]] = [ConnectionError]

    def work(state: Log) -> Log:
        petal.step("work", _work)
        return {}

    def _work() -> None:
        acts.append("work")
        raise error[0]("no")

    with AgentFactory(Log).add(work).with_checkpointer("memory://").build() as agent:
        thread = agent.thread("t")
        with pytest.raises(ConnectionError):
            thread.invoke({"entries": []})
        with pytest.raises(EffectNotRecordedError, match=r"it failed \(ConnectionError: no\)"):
            thread.resume(replay="dry")
        error[0] = Killed
        with pytest.raises(Killed):
            agent.graph.invoke(None, thread.config(), durability="sync")
        with pytest.raises(EffectNotRecordedError, match="it began and never ended"):
            thread.resume(replay="dry")
        assert len(acts) == 2


def test_parallel_branches_each_find_their_own(storage: CheckpointerConfig, acts: list[str]) -> None:
    def throw(state: Any) -> Log:
        return {"entries": [f"{state['n']}: {petal.step('throw', _throw)}"]}

    def _throw() -> str:
        acts.append("thrown")
        return f"dice {len(acts)}"

    graph = StateGraph(Log)
    graph.add_node("throw", throw)
    graph.add_conditional_edges(START, lambda state: [Send("throw", {"n": n}) for n in (1, 2, 3)])
    graph.add_edge("throw", END)
    with AgentFactory(Log).add(graph.compile(), "all").with_checkpointer(storage).build() as agent:
        thread = agent.thread("t")
        done = thread.invoke({"entries": []})
        assert thread.invoke(None, checkpoint_id=before(thread, "all"), replay="dry") == done
        assert len(acts) == 3


@pytest.mark.parametrize("is_async", [False, True])
async def test_with_a_saver_of_langgraph(acts: list[str], is_async: bool) -> None:
    def throw(state: Log) -> Log:
        return {"entries": [petal.step("throw", acts.append, "thrown"), interrupt("ok?")]}

    graph = StateGraph(Log)
    graph.add_node("throw", throw)
    graph.add_edge(START, "throw")
    flow: Any = graph.compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    flow.invoke({"entries": []}, config)
    flow.invoke(Command(resume="yes"), config)
    at = next(one for one in flow.get_state_history(config) if one.next == ("throw",)).config
    dry: RunnableConfig = {"configurable": {**at["configurable"], "__petal_replay": "dry"}}
    result = await flow.ainvoke(None, dry) if is_async else flow.invoke(None, dry)
    assert result["__interrupt__"][0].value == "ok?"
    assert acts == ["thrown"]
