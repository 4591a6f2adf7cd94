"""Retention on every storage: what goes is what was told, and whatever went, threads run on as if it had not."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

import psycopg
import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from petal.checkpoints import Retention, RetentionReport, SqliteSaver, open_checkpointer, pruning
from petal.checkpoints.postgres_sql import key
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import CheckpointerConfigurationError, CheckpointerError, CheckpointerUnavailableError


class Chat(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]


class Log(TypedDict, total=False):
    lines: Annotated[list[str], add]


class Lines(TypedDict, total=False):
    lines: Annotated[list[str], DeltaChannel(lambda value, writes: value + [x for w in writes for x in w])]


@pytest.fixture
def saver(storage: CheckpointerConfig) -> Iterator[PetalSaver]:
    with opened(storage) as saver:
        yield saver


def opened(storage: CheckpointerConfig, **options: Any) -> PetalSaver:
    saver = open_checkpointer(storage, **options)
    assert isinstance(saver, PetalSaver)
    return saver


def on(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def talk(saver: Any, turns: int, thread_id: str = "t") -> Any:
    """Several turns of a chat."""
    builder = StateGraph(Chat)
    builder.add_node("reply", lambda state: {"messages": [AIMessage("answer " * 20)]})
    builder.set_entry_point("reply")
    graph = builder.compile(checkpointer=saver)
    for turn in range(turns):
        graph.invoke({"messages": [("user", f"{turn} " + "word " * 50)]}, on(thread_id), durability="sync")
    return graph


def ids(saver: PetalSaver, thread_id: str = "t", ns: str | None = "") -> list[str]:
    return [info.checkpoint_id for info in saver.checkpoints(thread_id, 1_000, ns=ns)]


def size_of(saver: PetalSaver, thread_id: str = "t") -> int:
    [size] = [info.size for info in saver.threads() if info.thread_id == thread_id]
    assert size is not None
    return size


def test_a_dry_run_tells_exactly_what_goes(saver: PetalSaver) -> None:
    graph = talk(saver, 12)
    talk(saver, 1, "short")
    before, size, states = ids(saver), size_of(saver), list(graph.get_state_history(on("t")))
    policy = Retention(keep_last=5)
    told = saver.retain(policy, dry_run=True)
    assert (ids(saver), size_of(saver)) == (before, size)
    done = saver.retain(policy)
    assert isinstance(done, RetentionReport)
    assert (told.threads, told.dry_run, done.dry_run) == (done.threads, True, False)
    [thread] = done.threads
    assert (thread.thread_id, thread.whole) == ("t", False)
    assert [id for _, id in thread.checkpoints] == before[5:]
    assert (done.checkpoints, done.bytes, done.damaged) == (len(before) - 5, size - size_of(saver), ())
    assert ids(saver) == before[:5]
    assert [state.values for state in graph.get_state_history(on("t"))] == [state.values for state in states[:5]]
    assert saver.retain(policy).threads == saver.retain(Retention()).threads == ()
    assert saver.verify() == []


async def test_a_thread_fits_its_bytes(saver: PetalSaver) -> None:
    """All that can go goes if it must, and no more than must."""
    graph = talk(saver, 40)
    values, whole = graph.get_state(on("t")).values, size_of(saver)
    left = [len(ids(saver))]
    for limit in (whole, whole * 3 // 4, whole // 2):
        await saver.aretain(Retention(max_bytes=limit), ["t", "nobody"])
        assert size_of(saver) <= limit
        left.append(len(ids(saver)))
    assert left[0] == left[1] > left[2] > left[3] > 1
    saver.retain(Retention(max_bytes=1))
    assert len(ids(saver)) == 1
    assert graph.get_state(on("t")).values == values
    assert saver.verify() == []
    graph.invoke({"messages": [("user", "on")]}, on("t"), durability="sync")
    assert len(graph.get_state(on("t")).values["messages"]) == 82


def test_a_thread_that_was_pruned_meanwhile_is_left(saver: PetalSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes is decided anew in the transaction that deletes it."""
    policy = Retention(keep_last=2)
    with PetalSaver(saver._engine.store, saver._rows) as other:
        talk(saver, 2)
        read = saver._engine.read

        def overtaken(ask: Any) -> Any:
            planned = read(ask)
            other.retain(policy, ["t"])
            return planned

        monkeypatch.setattr(saver._engine, "read", overtaken)
        assert saver.retain(policy, ["t"]).threads == ()
        monkeypatch.undo()
        assert len(ids(saver)) == 2
        assert saver.retain(Retention(keep_last=1, keep=("t",)), ["t"]).threads == ()
        assert saver.retain(Retention(), ["t"]).threads == ()
        assert saver.verify() == []


def test_idle_threads_go_whole(saver: PetalSaver) -> None:
    talk(saver, 2, "a")
    talk(saver, 2, "b")
    talk(saver, 2, "pinned")
    assert saver.retain(Retention(max_idle="1d")).threads == ()
    pin = ids(saver, "pinned")[0]
    report = saver.retain(Retention(max_idle=1e-6, keep=("a", pin)))
    assert [(thread.thread_id, thread.whole) for thread in report.threads] == [("b", True)]
    assert sorted(thread.thread_id for thread in saver.threads()) == ["a", "pinned"]
    assert saver.get_tuple(on("b")) is None
    talk(saver, 1, "b")
    assert len(ids(saver, "b")) == 3


def test_what_is_too_old_goes(saver: PetalSaver) -> None:
    """The id tells when a checkpoint was made, else the header; who tells neither stays."""
    for number, ts in enumerate(["2001-01-01T00:00:00+00:00", "", "2001-01-01T00:00:00", "2001-01-01T00:00:00+00:00"]):
        checkpoint = empty_checkpoint() | {"id": str(number), "ts": ts}
        metadata: CheckpointMetadata = {"source": "loop", "step": number}
        saver.put(on("t", checkpoint_ns=""), checkpoint, metadata, {})
    talk(saver, 1, "new")
    saver.retain(Retention(max_age="30d"))
    assert ids(saver) == ["3", "2", "1"]
    assert len(ids(saver, "new")) == 3
    saver.retain(Retention(max_age=1e-6, max_idle=1e-6))
    assert ids(saver) == ["3", "2", "1"]
    assert saver.get_tuple(on("new")) is None


def asking(saver: Any) -> Any:
    """A graph that asks in a step of a subgraph, after two steps there."""
    inner = StateGraph(Log)
    inner.add_node("one", lambda state: {"lines": ["one"]})
    inner.add_node("two", lambda state: {"lines": [interrupt("go on?")]})
    inner.add_edge("one", "two")
    inner.set_entry_point("one")
    graph = inner.compile()
    outer = StateGraph(Log)
    outer.add_node("before", lambda state: {"lines": ["before"]})
    outer.add_node("sub", lambda state: {"lines": graph.invoke({"lines": []})["lines"]})
    outer.add_edge("before", "sub")
    outer.set_entry_point("before")
    return outer.compile(checkpointer=saver)


def test_open_questions_are_answered_after_it(saver: PetalSaver) -> None:
    """The thread stays though it is idle, and the subgraph goes on where it waits: its first step is not run again."""
    graph = asking(saver)
    for _ in range(2):
        graph.invoke({"lines": ["in"]}, on("t"), durability="sync")
    everything = ids(saver, ns=None)
    report = saver.retain(Retention(keep_last=1, max_idle=1e-6, max_age=1e-6, max_bytes=1))
    assert 0 < report.checkpoints < len(everything)
    assert not report.threads[0].whole
    [question] = graph.get_state(on("t")).interrupts
    assert question.value == "go on?"
    answered = graph.invoke(Command(resume="yes"), on("t"), durability="sync")
    assert answered["lines"] == ["in", "before", "in", "before", "one", "yes"]
    # Now that it is answered, nothing of it is held any more.
    saver.retain(Retention(keep_last=1))
    assert len(ids(saver, ns=None)) == 1
    assert saver.verify() == []


def test_the_question_of_an_abandoned_branch_stays(saver: PetalSaver) -> None:
    graph = asking(saver)
    graph.invoke({"lines": ["in"]}, on("t"), durability="sync")
    waiting = graph.get_state(on("t")).config
    [first] = [state for state in graph.get_state_history(on("t")) if state.next == ("before",)]
    graph.update_state(first.config, {"lines": ["another way"]}, as_node="before")
    graph.update_state(on("t"), {"lines": ["done"]}, as_node="sub")
    saver.retain(Retention(keep_last=1))
    assert set(ids(saver)) == {ids(saver)[0], waiting["configurable"]["checkpoint_id"]}
    answered = graph.invoke(Command(resume="yes"), waiting, durability="sync")
    assert answered["lines"] == ["in", "before", "one", "yes"]


def counting(saver: Any) -> Any:
    """A graph with a subgraph that keeps a state of its own over the turns."""
    inner = StateGraph(Log)
    inner.add_node("note", lambda state: {"lines": ["note"]})
    inner.set_entry_point("note")
    outer = StateGraph(Chat)
    outer.add_node("sub", inner.compile(checkpointer=True))
    outer.set_entry_point("sub")
    return outer.compile(checkpointer=saver)


def test_a_fork_of_what_stayed_has_its_subgraphs_state(saver: PetalSaver) -> None:
    graph = counting(saver)
    for _ in range(6):
        graph.invoke({"messages": []}, on("t"), durability="sync")
    pin = [state.config["configurable"]["checkpoint_id"] for state in graph.get_state_history(on("t"))][9]
    saver.fork_thread("t", pin, "expected")
    everything = len(ids(saver, ns=None))
    saver.retain(Retention(keep_last=1, keep=(pin, "expected")))
    assert len(ids(saver, ns=None)) < everything
    saver.fork_thread("t", pin, "fork")
    [ns] = {info.ns for info in saver.checkpoints("t", 100, ns=None)} - {""}
    for thread_id in ("expected", "fork"):
        graph.invoke({"messages": []}, on(thread_id), durability="sync")
    heads = [saver.get_tuple(on(thread_id, checkpoint_ns=ns)) for thread_id in ("expected", "fork")]
    assert len({tuple(head.checkpoint["channel_values"]["lines"]) for head in heads if head}) == 1
    assert saver.verify() == []


def test_delta_channels_are_rebuilt_as_before(saver: PetalSaver) -> None:
    builder = StateGraph(Lines)
    builder.add_node("add", lambda state: {"lines": ["line"]})
    builder.set_entry_point("add")
    graph = builder.compile(checkpointer=saver)
    for _ in range(4):
        graph.invoke({"lines": ["in"]}, on("t"), durability="sync")
    before = {state.config["configurable"]["checkpoint_id"]: state.values for state in graph.get_state_history(on("t"))}
    for policy in (Retention(keep_last=3), Retention(max_bytes=1, max_age=1e-6)):
        saver.retain(policy)
        after = {
            state.config["configurable"]["checkpoint_id"]: state.values for state in graph.get_state_history(on("t"))
        }
        assert after.items() <= before.items()
    assert graph.get_state(on("t")).values == {"lines": ["in", "line"] * 4}


@pytest.mark.parametrize(
    "policy", [Retention(keep_last=1), Retention(max_bytes=1), Retention(max_idle=1e-6)], ids=["last", "bytes", "idle"]
)
def test_a_run_goes_on_though_its_past_was_deleted(saver: PetalSaver, policy: Retention) -> None:
    """In the middle of each of its steps; another saver does it, so that the caches of this one know nothing of it."""
    went = 0
    with PetalSaver(saver._engine.store, saver._rows) as other:

        def reply(state: Any) -> Any:
            nonlocal went
            went += other.retain(policy).checkpoints
            return {"messages": [AIMessage("answer")]}

        builder = StateGraph(Chat)
        for name, before in (("one", "__start__"), ("two", "one"), ("three", "two")):
            builder.add_node(name, reply)
            builder.add_edge(before, name)
        graph = builder.compile(checkpointer=saver)
        for _ in range(3):
            graph.invoke({"messages": [("user", "word " * 50)]}, on("t"), durability="sync")
        assert went > 3
        assert len(graph.get_state(on("t")).values["messages"]) == 12
        assert saver.verify() == []


async def test_a_thread_prunes_itself(storage: CheckpointerConfig) -> None:
    async with AgentFactory().with_chat(llm="demo:").with_checkpointer(storage).build() as agent:
        thread = agent.thread("t")
        for text in ("my name is Ada", "hello", "what is my name?"):
            await thread.ainvoke(text)
        told = await thread.aprune(keep_last=2, dry_run=True)
        assert told is not None
        assert (told.checkpoints, len(await thread.ahistory())) == (7, 9)
        done = thread.prune(Retention(keep_last=2))
        assert done is not None
        assert (done.threads, len(thread.history())) == (told.threads, 2)
        for wrong in ({"policy": Retention(), "keep_last": 1}, {"strategy": "delete", "keep_last": 1}):
            with pytest.raises(ValueError, match="not several of them"):
                await thread.aprune(**wrong)
        with pytest.raises(ValueError, match="A dry run tells what rules would delete"):
            await thread.aprune(dry_run=True)
        with pytest.raises(CheckpointerConfigurationError, match="no rule 'keep_lost'"):
            await thread.aprune(keep_lost=1)
        with pytest.raises(TypeError, match="A list of ids"):
            agent.checkpointer.retain(Retention(), "t")
        assert await thread.aprune() is None
        assert len(await thread.ahistory()) == 1
        assert thread.prune(max_idle=1e-6) is not None
        assert await thread.ahistory() == []
    langgraphs = CheckpointerConfig(config={"engine": "langgraph"})
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(langgraphs).build() as agent:
        agent.invoke("hello", thread_id="t")
        with pytest.raises(CheckpointerError, match="has no aretain"):
            agent.thread("t").prune(keep_last=1)


def test_a_damaged_thread_stays_and_the_others_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pruning, "_PAGE", 1)
    file = tmp_path / "a.db"
    with SqliteSaver(file, retention=Retention(keep_last=1)) as saver:
        unhurried(saver)
        for name in ("a", "b", "c"):
            talk(saver, 2, name)
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE petal_checkpoints SET metadata = x'00' WHERE thread_id = 'b' AND step = 0")
        report = saver.retain(Retention(keep_last=2))
        assert [thread.thread_id for thread in report.threads] == ["c", "a"]
        [(damaged, problem)] = report.damaged
        assert damaged == "b"
        assert "metadata" in problem
        assert len(ids_left(file, "b")) == 6
        hurried(saver, monkeypatch)
        settle(saver, lambda: len(ids(saver, "a")) == len(ids(saver, "c")) == 1)
        assert len(ids_left(file, "b")) == 6
    assert any("a thread could not be pruned" in record.message for record in caplog.records)


def ids_left(file: Path, thread_id: str) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT id FROM petal_checkpoints WHERE thread_id = ?", (thread_id,))
        return [id for (id,) in rows]


def unhurried(saver: PetalSaver) -> None:
    """Have it do nothing by itself yet."""
    assert saver._upkeep is not None
    saver._upkeep._next = float("inf")


def hurried(saver: PetalSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it do something by itself after each save."""
    monkeypatch.setattr(pruning, "REST", 0)
    assert saver._upkeep is not None
    saver._upkeep.pace = saver._upkeep._next = 0


def settle(saver: PetalSaver, done: Callable[[], bool]) -> None:
    """Save, one save after each thing that it does by itself, until something holds."""
    assert saver._upkeep is not None
    while not done():
        checkpoint = empty_checkpoint()
        saver.put(on("other", checkpoint_ns=""), checkpoint, {"source": "loop", "step": 0}, {})
        while saver._upkeep._busy:
            time.sleep(0.001)


async def test_it_runs_by_itself_after_saves(storage: CheckpointerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(storage, retention={"keep_last": 3}) as saver:
        unhurried(saver)
        talk(saver, 4)
        await saver.aput(on("async", checkpoint_ns=""), empty_checkpoint(), {}, {})
        assert len(ids(saver)) == 12
        hurried(saver, monkeypatch)
        settle(saver, lambda: len(ids(saver)) == 3)
        graph = talk(saver, 1)
        assert len(graph.get_state(on("t")).values["messages"]) == 10
        assert saver.verify() == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("petal-retention")]
    with pytest.raises(CheckpointerUnavailableError, match="closed"):
        talk(saver, 1)
    assert saver._upkeep is not None
    saver._upkeep.saved()  # which is nothing any more
    saver.close()


def test_it_rests_longer_than_it_works(storage: CheckpointerConfig) -> None:
    """The first save has it look at once, the next ones not yet."""
    with opened(storage, retention=Retention(keep_last=1)) as saver:
        upkeep = saver._upkeep
        assert upkeep is not None
        upkeep.pace = 3_600
        saver.put(on("other", checkpoint_ns=""), empty_checkpoint(), {}, {})
        while upkeep._busy:
            time.sleep(0.001)
        talk(saver, 2)
        assert not upkeep._busy
        assert len(ids(saver)) == 6


def test_two_saves_at_once_begin_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(CheckpointerConfig(), retention=Retention(keep_last=1)) as saver:
        upkeep = saver._upkeep
        assert upkeep is not None
        looked = []
        monkeypatch.setattr(upkeep, "_look", lambda: looked.append(1))
        with upkeep._lock:
            second = threading.Thread(target=upkeep.saved)
            second.start()
            while not second.is_alive():
                time.sleep(0.001)
            time.sleep(0.05)  # it has seen that nothing is under way, and waits
            upkeep._busy = True
        second.join()
        assert looked == []


def test_an_unreachable_storage_does_not_end_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with opened(CheckpointerConfig(), retention=Retention(keep_last=1)) as saver:
        hurried(saver, monkeypatch)
        talk(saver, 2)
        read, failures = saver._engine.read, [1]

        def unreachable(ask: Any) -> Any:
            if threading.current_thread().name.startswith("petal-retention") and failures:
                raise CheckpointerUnavailableError("memory://", f"it is away {failures.pop()}", "Wait")
            return read(ask)

        monkeypatch.setattr(saver._engine, "read", unreachable)
        settle(saver, lambda: not failures and len(ids(saver)) == 1)
    assert [record.levelname for record in caplog.records if "it is away" in record.message] == ["INFO"]


def test_one_process_at_a_time_does_it(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds another one at it leaves the thread; who asks for it by hand is not kept from it."""
    config = CheckpointerConfig(type="postgres", config={"connection_string": postgres_url})
    with opened(config, retention=Retention(keep_last=2)) as saver, psycopg.connect(postgres_url) as other:
        unhurried(saver)
        talk(saver, 2)
        looked = []
        judged = pruning._judged
        monkeypatch.setattr(pruning, "_judged", lambda *args: looked.append(1) or judged(*args))
        other.execute("SELECT pg_advisory_xact_lock(%s)", (key("public", "\0retention"),))
        hurried(saver, monkeypatch)
        settle(saver, lambda: len(looked) > 3)
        assert len(ids(saver)) == 6
        assert saver.retain(Retention(keep_last=5), ["t"]).checkpoints == 1
        other.rollback()
        settle(saver, lambda: len(ids(saver)) == 2)


def test_a_process_ends_though_nobody_closed_the_saver(durable_storage: CheckpointerConfig) -> None:
    """It is killed by nobody, and what was saved is whole."""
    script = (
        "import sys\n"
        "from langgraph.checkpoint.base import empty_checkpoint\n"
        "from petal.checkpoints import open_checkpointer, pruning\n"
        "from petal.core.config.checkpointer import CheckpointerConfig\n"
        "pruning.REST, pruning.PACE = 0, 0\n"
        "saver = open_checkpointer(CheckpointerConfig.model_validate_json(sys.argv[1]), retention={'keep_last': 1})\n"
        "for step in range(50):\n"
        "    config = {'configurable': {'thread_id': 't', 'checkpoint_ns': ''}}\n"
        "    saver.put(config, empty_checkpoint(), {'source': 'loop', 'step': step}, {})\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, durable_storage.model_dump_json()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with opened(durable_storage) as saver:
        assert saver.checkpoints("t")[0].metadata["step"] == 49
        assert saver.verify() == []
