"""`petal threads` on real databases, without the agent; and on what is none."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nursery import Nursery

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory

Petal = Callable[..., subprocess.CompletedProcess[str]]


def fail(state: Any) -> None:
    """Fails."""
    raise ValueError("no bread")


@pytest.fixture
def petal(petal: Petal) -> Petal:
    """Runs `petal threads` in an empty folder."""
    return partial(petal, "threads")


@pytest.fixture
def kept(durable_storage: CheckpointerConfig, database: str) -> str:
    """A database with a conversation, a thread that waits, one that failed, and one whose id begins another's."""
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(durable_storage).build() as agent:
        agent.invoke("my name is Ada", thread_id="user-1")
        agent.invoke("what is my name?", thread_id="user-1")
        agent.invoke("hello", thread_id="user-12")
    asking = AgentFactory().with_chat(llm="demo:").with_approval("Shall I answer?")
    with asking.with_checkpointer(durable_storage).build() as agent:
        agent.invoke("hello", thread_id="waits")
    with (
        AgentFactory().add(fail).with_checkpointer(durable_storage).build() as agent,
        pytest.raises(ValueError, match="no bread"),
    ):
        agent.invoke("hello", thread_id="failed")
    return database


def test_threads_are_listed(petal: Petal, kept: str) -> None:
    """The latest used first, whole ids, at most so many."""
    listed = petal("list", "--db", kept)
    assert listed.returncode == 0, listed.stderr
    head, *lines = listed.stdout.splitlines()
    assert head.split() == ["UPDATED", "CHECKPOINTS", "STATUS", "THREAD"]
    assert [line.split()[-2:] for line in lines] == [
        ["failed", "failed"],
        ["waiting", "waits"],
        ["done", "user-12"],
        ["done", "user-1"],
    ]
    few = json.loads(petal("list", "--json", "-n", "2", PETAL_DB=kept).stdout)
    assert [thread["thread_id"] for thread in few] == ["failed", "waits"]
    assert all(thread["updated"] and thread["checkpoints"] for thread in few)


def test_a_thread_is_shown(petal: Petal, kept: str) -> None:
    """Messages, what is next, what it asks, what failed: all without the agent."""
    shown = petal("show", "user-1", "--db", kept)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.split("\n\n")[1] == (
        "You: my name is Ada\nAgent: Nice to meet you, Ada!\nYou: what is my name?\nAgent: Your name is Ada.\n"
    )
    waits = json.loads(petal("show", "wai", "--db", kept, "--json").stdout)
    assert (waits["status"], waits["next"]) == ("waiting", ["approve_chat"])
    assert [question["question"] for question in waits["interrupts"]] == ["Shall I answer?"]
    assert "--thread waits --resume --answer yes" in petal("show", "waits", PETAL_DB=kept).stdout
    failed = json.loads(petal("show", "failed", "--db", kept, "--json").stdout)
    assert (failed["status"], failed["next"]) == ("failed", ["fail"])
    assert "no bread" in failed["errors"][0]


def test_history_says_what_was_done(petal: Petal, kept: str) -> None:
    """Newest first; an earlier state is shown by its shortened id."""
    told = json.loads(petal("history", "user-1", "--db", kept, "--json").stdout)
    assert [point["did"] for point in told] == ["ran chat", "began", "took new input"] * 2
    assert [point["step"] for point in told] == [4, 3, 2, 1, 0, -1]
    assert [point["said"] for point in told] == [None, None, "what is my name?", None, None, "my name is Ada"]
    head, first, *_ = petal("history", "user-1", "--db", kept, "-n", "4").stdout.splitlines()
    assert head.split("  ")[0] == "CHECKPOINT"
    assert first.endswith("loop    ran chat")
    earlier = petal("history", "user-1", "--db", kept, "-n", "4").stdout.splitlines()[-1].split()[0]
    shown = json.loads(petal("show", "user-1", "--checkpoint", earlier, "--db", kept, "--json").stdout)
    assert len(shown["state"]["messages"]) == 2


def test_reading_imports_nothing(nursery: Nursery, petal: Petal, tmp_path: Path) -> None:
    """Values of one's own types are shown as data, even where their module could be had; and quietly."""
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\nfrom pydantic import BaseModel\n"
        "Path('imported').touch()\n"
        "@dataclass\nclass Place:\n    name: str\n"
        "class Order(BaseModel):\n    place: Place\n"
        "def order(state):\n    return {'order': Order(place=Place('Rome')), 'place': Place('Oslo')}\n"
    )
    (tmp_path / "own.yaml").write_text(
        "state_schema: {n: int, order: 'own:Order', place: 'own:Place'}\ncheckpointer: sqlite:///runs.db\n"
        "steps: [{type: custom, name: order, config: {function: 'own:order'}}]\n"
    )
    ran = nursery.run(["-m", "petal.cli", "run", "own.yaml", "--thread", "t", "--input", '{"n": 1}'], tmp_path)
    assert ran.returncode == 0, ran.stderr
    (tmp_path / "imported").unlink()
    shown = petal("show", "t", "--db", "runs.db", "--json", PYTHONPATH=str(tmp_path))
    assert (shown.returncode, shown.stderr) == (0, "")
    state = json.loads(shown.stdout)["state"]
    assert (state["n"], state["place"]) == (1, {"name": "Oslo"})
    assert state["order"]["place"] == {"name": "Rome"}
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("durable_storage", ["sqlite"], indirect=True)
def test_an_id_is_short_while_it_is_unique(petal: Petal, kept: str) -> None:
    """A whole id wins; several are listed; none is an error too."""
    assert json.loads(petal("show", "user-1", "--db", kept, "--json").stdout)["thread_id"] == "user-1"
    several = petal("show", "user", "--db", kept)
    assert (several.returncode, several.stdout) == (1, "")
    assert several.stderr == ("petal: 'user' is the beginning of 2 threads; give more of it:\n  user-12\n  user-1\n")
    none = petal("history", "nobody", "--db", kept)
    assert (none.returncode, none.stderr) == (
        1,
        "petal: Thread 'nobody' has no checkpoints; `petal threads list` lists the threads there are.\n",
    )
    unknown = petal("show", "user-1", "-c", "zz", "--db", kept)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "has no checkpoint 'zz'" in unknown.stderr


def test_nothing_is_no_short_id(petal: Petal, tmp_path: Path) -> None:
    """A variable of a script that is empty does not stand for the only thread or checkpoint there is."""
    config = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "runs.db")})
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(config).build() as agent:
        agent.invoke("hello", thread_id="t")
        agent.thread("t").prune()
    for words in (["show", ""], ["rewind", ""], ["prune", "", "--keep-last", "1"]):
        refused = petal(*words, "--db", "runs.db")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("petal: Thread '' has no checkpoints")
    refused = petal("show", "t", "-c", "", "--db", "runs.db")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("petal: Thread 't' has no checkpoint ''")


def test_a_missing_database_is_not_made(petal: Petal, tmp_path: Path) -> None:
    """Reading makes nothing."""
    for words in (["list"], ["show", "t"], ["history", "t"]):
        missing = petal(*words, "--db", "folder/missing.db")
        assert (missing.returncode, missing.stdout) == (1, "")
        assert missing.stderr.startswith("petal: sqlite:///folder/missing.db: there is no such file.")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_database_is_left_alone(petal: Petal, tmp_path: Path) -> None:
    """A file that is something else says so, and stays as it is."""
    note = tmp_path / "note.txt"
    note.write_text("This is a letter, not a database. " * 100)
    refused = petal("list", "--db", "note.txt")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "note.txt" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert note.read_text().startswith("This is a letter")


def test_a_database_of_somebody_elses_holds_no_threads(petal: Petal, tmp_path: Path) -> None:
    """Looking at it does not make tables in it."""
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE other (n)")
    listed = petal("list", "--db", "empty.db")
    assert (listed.returncode, listed.stdout) == (1, "")
    assert listed.stderr.startswith(
        "petal: sqlite:///empty.db has no tables of this version of Petal: nothing was kept"
    )
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["other"]


def test_the_database_is_that_of_an_agent(petal: Petal, tmp_path: Path) -> None:
    """Where none is named; and who names neither is told how."""
    (tmp_path / "agent.yaml").write_text(
        'llm: "demo:"\ncheckpointer: sqlite:///runs.db\nsteps: [{type: llm, name: chat}]\n'
    )
    assert "runs.db: there is no such file" in petal("list", "--agent", "agent.yaml").stderr
    (tmp_path / "bare.yaml").write_text('llm: "demo:"\nsteps: [{type: llm, name: chat}]\n')
    for words, said in (
        (["list"], "Name it with --db URL or in PETAL_DB"),
        (["list", "--agent", "bare.yaml"], "bare.yaml names no database"),
        (["list", "--db", "memory://"], "memory keeps no threads"),
        (["list", "--db", ":memory:"], "memory keeps no threads"),
    ):
        refused = petal(*words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr


def test_an_unreachable_server_is_a_message(petal: Petal) -> None:
    """Without the password."""
    refused = petal("list", "--db", "postgresql://ada:hush-hush@127.0.0.1:9/none?connect_timeout=2")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "hush-hush" not in refused.stderr
    assert "Traceback" not in refused.stderr


def test_old_checkpoints_are_pruned(petal: Petal, kept: str, tmp_path: Path) -> None:
    """A dry run lists them and changes nothing; then they go, and what is left is shown as before."""
    shown = petal("show", "user-1", "--db", kept, "--json").stdout
    words = ["prune", "user-1", "--keep-last", "2", "--db", kept]
    told = json.loads(petal(*words, "--dry-run", "--json").stdout)
    [thread] = told["threads"]
    assert (told["dry_run"], thread["thread_id"], thread["whole"]) == (True, "user-1", False)
    older = json.loads(petal("history", "user-1", "--db", kept, "--json").stdout)[2:]
    assert [point["checkpoint_id"] for point in thread["checkpoints"]] == [point["checkpoint_id"] for point in older]
    would = petal(*words, "--dry-run").stdout.splitlines()
    assert would[-1] == f"4 checkpoints with {thread['bytes']:,} bytes would go."
    done = petal(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [*would[:-1], f"4 checkpoints with {thread['bytes']:,} bytes deleted."]
    assert len(json.loads(petal("history", "user-1", "--db", kept, "--json").stdout)) == 2
    assert petal("show", "user-1", "--db", kept, "--json").stdout == shown
    assert petal(*words).stdout == "0 checkpoints with 0 bytes deleted.\n"


def test_idle_threads_are_pruned_but_not_those_that_ask(petal: Petal, kept: str) -> None:
    done = petal("prune", "--max-idle", "0.001s", "--max-age", "1", "--keep", "user-12", "--db", kept, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    gone = {thread["thread_id"]: thread["whole"] for thread in json.loads(done.stdout)["threads"]}
    assert (gone["failed"], gone["user-1"]) == (True, True)
    left = json.loads(petal("list", "--json", "--db", kept).stdout)
    assert {thread["thread_id"] for thread in left} == {"user-12", "waits"}
    assert json.loads(petal("show", "waits", "--db", kept, "--json").stdout)["status"] == "waiting"


def test_what_is_to_stay_may_be_shortened_and_must_be_there(petal: Petal, kept: str) -> None:
    """An id as `petal threads history` prints it, of a checkpoint that another thread has too."""
    point = json.loads(petal("history", "user-1", "--db", kept, "--json").stdout)[3]["checkpoint_id"]
    petal("fork", "user-1", "--at", point, "--to", "forked", "--db", kept)
    words = ["prune", "user-1", "--keep-last", "1", "--db", kept]
    for given in ("nobody", "", f"{point}0"):
        refused = petal(*words, "--keep", given)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"there is no thread {given!r}" in " ".join(refused.stderr.replace("│", "").split())
    several = petal(*words, "--keep", "user", "--json")
    assert (several.returncode, several.stdout) == (1, "")
    assert several.stderr.startswith("petal: 'user' is the beginning of 2 threads and checkpoints; give more of it:")
    done = petal(*words, "--keep", point[:13], "--keep", "user-12")
    assert (done.returncode, done.stderr) == (0, "")
    left = json.loads(petal("history", "user-1", "--db", kept, "--json").stdout)
    assert [checkpoint["checkpoint_id"] for checkpoint in left][1:] == [point]
    assert petal("prune", "--keep-last", "1", "--keep", point[:13], "--db", kept).returncode == 0
    left = json.loads(petal("history", "user-1", "--db", kept, "--json").stdout)
    assert [checkpoint["checkpoint_id"] for checkpoint in left][1:] == [point]


def test_the_agents_own_retention_is_the_default(petal: Petal, tmp_path: Path) -> None:
    agent = 'llm: "demo:"\nsteps: [{type: llm, name: chat}]\ncheckpointer: {type: sqlite, config: {db_file: runs.db'
    (tmp_path / "agent.yaml").write_text(f"{agent}, retention: {{keep_last: 1}}}}}}\n")
    (tmp_path / "bare.yaml").write_text(f"{agent}}}}}\n")
    config = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "runs.db")})
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(config).build() as agent_:
        agent_.invoke("hello", thread_id="t")
    dry = json.loads(petal("prune", "--agent", "agent.yaml", "--dry-run", "--json").stdout)
    assert len(dry["threads"][0]["checkpoints"]) == 2
    assert petal("prune", "--agent", "agent.yaml", "--keep", "t").stdout == "0 checkpoints with 0 bytes deleted.\n"
    assert petal("prune", "--db", "runs.db", "--agent", "agent.yaml").stdout.endswith("bytes deleted.\n")
    assert len(json.loads(petal("history", "t", "--db", "runs.db", "--json").stdout)) == 1
    for words in (["--db", "runs.db"], ["--agent", "bare.yaml"]):
        refused = petal("prune", *words)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "Name a rule" in refused.stderr
    wrong = petal("prune", "--max-age", "soon", "--db", "runs.db")
    assert wrong.returncode == 1
    assert "Retention's max_age: 'soon' is no duration" in wrong.stderr


def test_what_cannot_be_pruned_says_so_and_stays(petal: Petal, tmp_path: Path) -> None:
    """A damaged thread, LangGraph's tables, somebody else's file."""
    config = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "runs.db")})
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(config).build() as agent:
        agent.invoke("hello", thread_id="whole")
        agent.invoke("hello", thread_id="damaged")
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection, connection:
        connection.execute("UPDATE petal_checkpoints SET metadata = x'00' WHERE thread_id = 'damaged' AND step = 0")
    done = petal("prune", "--keep-last", "1", "--db", "runs.db")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].split()[-1] == "whole"
    assert "petal: thread 'damaged' was left: " in done.stderr
    told = json.loads(petal("prune", "--keep-last", "1", "--db", "runs.db", "--json").stdout)
    assert [thread["thread_id"] for thread in told["damaged"]] == ["damaged"]
    langgraphs = CheckpointerConfig(
        type="sqlite", config={"db_file": str(tmp_path / "theirs.db"), "engine": "langgraph"}
    )
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(langgraphs).build() as agent:
        agent.invoke("hello", thread_id="t")
    refused = petal("prune", "--keep-last", "1", "--db", "theirs.db")
    assert refused.returncode == 1
    assert "`petal convert` copies it into Petal's" in refused.stderr
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE other (n)")
    assert petal("prune", "--keep-last", "1", "--db", "empty.db").returncode == 1
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["other"]
