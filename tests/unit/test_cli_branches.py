"""Mistakes with branches on the command line, and what it says of other tables; in this process, since it is quick."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.types import interrupt
from typer.testing import CliRunner, Result

from petal.cli.application import app
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory

Petal = Callable[..., Result]


def ask_and_fail(state: Any) -> None:
    """Fails once it is answered."""
    interrupt("Shall I?")
    raise ValueError("no bread")


@pytest.fixture
def petal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Petal:
    """Runs `petal threads` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(app, ["threads", *words])


def test_mistakes_with_branches_are_told(petal: Petal, tmp_path: Path) -> None:
    """What does not go together is wrong use; what is not there is listed; and nothing is changed."""
    config = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "runs.db")})
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(config).build() as agent:
        for _ in range(3):
            agent.invoke("hello", thread_id="t")
        agent.invoke("hello", thread_id="other")
        agent.thread("t").name_branch("here")
        agent.thread("t").name_branch("intro", agent.thread("t").history()[-1].config["configurable"]["checkpoint_id"])
    unknown = "has no checkpoint 'her', and no branch of that name. Did you mean 'here'? Known: here, intro."
    for code, said, words in (
        (1, unknown, "rewind t --to her"),
        (1, unknown, "fork t --at her"),
        (1, unknown, "branches t --name x --at her"),
        (1, unknown, "branches t --drop her"),
        (1, unknown, "show t -c her"),
        (1, "Thread 'nobody' has no checkpoints; `petal threads list` lists", "rewind nobody"),
        (1, "Thread 'nobody' has no checkpoints", "fork nobody"),
        (1, "Thread 'nobody' has no checkpoints", "branches nobody"),
        (1, "Thread 'other' already has checkpoints; name a thread that does not exist", "fork t --to other"),
        (1, "has a branch 'intro' already, at checkpoint", "rewind t --keep-as intro"),
        (1, "can be no name of a branch: it is empty", "branches t --name ''"),
        (2, "--turns counts back and --to names a place; keep one of them.", "rewind t --turns 1 --to here"),
        (2, "'0' is no whole number above 0", "rewind t --turns 0"),
        (2, "'two' is no whole number above 0", "rewind t --turns two"),
        (2, "'0' is no whole number above 0; write one, such as 10.", "prune --keep-last 0"),
        (2, "'few' is no whole number above 0", "prune --keep-last few"),
        (2, "'-1' is no whole number above 0", "prune --max-bytes -1"),
        (2, "'0' is no whole number above 0", "history t -n 0"),
        (2, "of thread 't' 2 turns can be taken back; name another place with --to", "rewind t --turns 3"),
        (2, "of thread 'other' 0 turns can be taken back", "rewind other"),
        (2, "an id has at least one character", "fork t --to ''"),
        (2, "add --name NAME", "branches t --at here"),
        (2, "--name gives a name and --drop takes one away", "branches t --name x --drop here"),
    ):
        refused = petal(*shlex.split(words), "--db", "runs.db")
        assert (refused.exit_code, refused.stdout) == (code, ""), words
        assert said in " ".join(refused.stderr.replace("│", "").split()), words
    assert len(json.loads(petal("history", "t", "--db", "runs.db", "--json").stdout)) == 9
    assert len(json.loads(petal("branches", "t", "--db", "runs.db", "--json").stdout)) == 2
    assert len(json.loads(petal("list", "--db", "runs.db", "--json").stdout)) == 2


def test_branches_in_langgraphs_tables(petal: Petal, tmp_path: Path) -> None:
    """They are named, forked and listed; a rewind would have to write values anew, so it is refused."""
    config = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "theirs.db"), "engine": "langgraph"})
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(config).build() as agent:
        agent.invoke("my name is Ada", thread_id="t")
        agent.invoke("hello", thread_id="t")
        agent.thread("t").rewind(keep_as="greeted")
    refused = petal("rewind", "t", "--db", "theirs.db")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.endswith("; `petal convert` copies it into Petal's.\n")
    assert petal("branches", "t", "--name", "now", "--db", "theirs.db").exit_code == 0
    branches = json.loads(petal("branches", "t", "--db", "theirs.db", "--json").stdout)
    assert [branch["name"] for branch in branches] == ["greeted", "now"]
    assert "\n\nBranch greeted, parted at " in petal("history", "t", "--db", "theirs.db").stdout
    fork = json.loads(petal("fork", "t", "--at", "greeted", "--db", "theirs.db", "--json").stdout)
    assert len(fork["state"]["messages"]) == 4


def test_a_question_that_was_answered_before_its_step_failed_is_not_asked_again(petal: Petal, tmp_path: Path) -> None:
    config = CheckpointerConfig(type="sqlite", config={"db_file": str(tmp_path / "runs.db")})
    with AgentFactory().add(ask_and_fail).with_checkpointer(config).build() as agent:
        agent.invoke("hello", thread_id="t")
        assert json.loads(petal("show", "t", "--db", "runs.db", "--json").stdout)["status"] == "waiting"
        with pytest.raises(ValueError, match="no bread"):
            agent.thread("t").resume("yes")
    shown = json.loads(petal("show", "t", "--db", "runs.db", "--json").stdout)
    assert (shown["status"], shown["interrupts"], shown["next"]) == ("failed", [], ["ask_and_fail"])
    assert "no bread" in shown["errors"][0]
    assert "--thread t --db runs.db --resume\n" in petal("show", "t", "--db", "runs.db").stdout
