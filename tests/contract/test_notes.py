"""Notes on checkpoints, with Petal's savers and LangGraph's: kept, found, carried along, and passed over by a run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt

from petal.checkpoints.notes import BRANCH, EFFECT, Note, anotes, aput_note, notes, put_note
from petal.checkpoints.saver import PetalSaver


def _asking(saver: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Any, Any, Any, Any]:
    graph = StateGraph(dict)
    graph.add_node("ask", lambda state: {"answer": interrupt("Which?")})
    graph.add_edge(START, "ask")
    return graph.compile(checkpointer=saver)


CONFIG: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def test_notes_are_kept_by_checkpoint_and_key_and_written_once(saver: BaseCheckpointSaver[Any]) -> None:
    graph = _asking(saver)
    graph.invoke({"a": 1}, CONFIG)
    head = graph.get_state(CONFIG).config
    first = list(saver.list(CONFIG))[-1].config
    put_note(saver, head, EFFECT, {"b": 1}, "2")
    asyncio.run(aput_note(saver, head, EFFECT, ["a"], "1"))
    put_note(saver, head, EFFECT, "again", "1")
    put_note(saver, head, BRANCH, "what-if", "name")
    put_note(saver, first, EFFECT, 3, "9")

    at, before = head["configurable"]["checkpoint_id"], first["configurable"]["checkpoint_id"]
    all_of_them = [Note("t", "", before, "9", 3), Note("t", "", at, "1", ["a"]), Note("t", "", at, "2", {"b": 1})]
    assert notes(saver, "t", EFFECT) == all_of_them
    assert asyncio.run(anotes(saver, "t", EFFECT)) == all_of_them
    assert notes(saver, "t", EFFECT, checkpoint_id=before) == all_of_them[:1]
    assert notes(saver, "t", EFFECT, ns="inner") == asyncio.run(anotes(saver, "u", EFFECT)) == []
    assert [note.value for note in notes(saver, "t", BRANCH)] == ["what-if"]


def test_a_run_passes_over_them(saver: BaseCheckpointSaver[Any]) -> None:
    graph = _asking(saver)
    graph.invoke({"a": 1}, CONFIG)
    put_note(saver, graph.get_state(CONFIG).config, EFFECT, 1, "1")
    waiting = graph.get_state(CONFIG)
    assert waiting.next == ("ask",)
    assert [question.value for question in waiting.interrupts] == ["Which?"]
    assert graph.invoke(Command(resume="this"), CONFIG) == {"answer": "this"}
    assert graph.get_state(CONFIG).next == ()


@pytest.mark.parametrize("saver", ["memory", "sqlite", "postgres"], indirect=True)
def test_they_go_with_their_checkpoints(saver: PetalSaver) -> None:
    graph = _asking(saver)
    graph.invoke({"a": 1}, CONFIG)
    put_note(saver, graph.get_state(CONFIG).config, EFFECT, 1, "1")
    saver.copy_thread("t", "copy")
    assert [note.value for note in saver.notes("copy", EFFECT)] == [1]
    saver.delete_thread("t")
    assert saver.notes("t", EFFECT) == []
