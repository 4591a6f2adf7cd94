"""Real processes on one thread: none loses an input, and one that was given up for dead cannot write any more."""

from __future__ import annotations

import json
import operator
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypedDict

import pytest
from nursery import Nursery

from petal.core.config.checkpointer import CheckpointerConfig, Durability
from petal.core.factory import AgentFactory
from petal.errors import NothingToResumeError

pytestmark = pytest.mark.usefixtures("unmeasured")
HERE = Path(__file__).parent
KILLED_INPUT = str(HERE / "killed_input.py")
ROUNDS = 500


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def url_of(storage: CheckpointerConfig) -> str:
    assert storage.config is not None
    return storage.config.get("connection_string") or f"sqlite:///{storage.config['db_file']}"


def said(storage: CheckpointerConfig) -> list[str]:
    with AgentFactory(Said).add(lambda state: {}, "none").with_checkpointer(storage).build() as agent:
        values: Said = agent.thread("t").state().values
    return values["said"]


@contextmanager
def process(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as begun:
        try:
            yield begun
        finally:
            begun.kill()


def test_a_thousand_rounds_of_two_processes_lose_and_double_nothing(durable_storage: CheckpointerConfig) -> None:
    url = url_of(durable_storage)
    with process("rounds.py", url, "a", str(ROUNDS)) as a, process("rounds.py", url, "b", str(ROUNDS)) as b:
        for one in a, b:
            assert one.communicate(timeout=200)[0] == ""
            assert one.returncode == 0
    lines = said(durable_storage)
    inputs, answers = lines[::2], lines[1::2]
    assert answers == [f"answer to {given}" for given in inputs]
    for name in "a", "b":
        mine = [given for given in inputs if given.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(ROUNDS)]
    assert len(inputs) == 2 * ROUNDS


def test_a_stopped_process_that_wakes_after_its_thread_went_elsewhere_cannot_write(
    durable_storage: CheckpointerConfig,
) -> None:
    with process("held.py", url_of(durable_storage), "sleeper") as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdin is not None
        assert sleeper.stdout.readline() == "in its step\n"
        sleeper.send_signal(signal.SIGSTOP)
        with process("held.py", url_of(durable_storage), "other") as other:
            assert other.communicate("go on\n", timeout=60)[0] == "in its step\n['sleeper', 'other', 'held']\n"
        sleeper.send_signal(signal.SIGCONT)
        told = sleeper.communicate("go on\n", timeout=60)[0]
    assert "conflict: This run no longer has thread 't'" in told
    assert said(durable_storage) == ["sleeper", "other", "held"]


def test_the_thread_of_a_killed_process_is_free_again(durable_storage: CheckpointerConfig) -> None:
    with process("held.py", url_of(durable_storage), "killed") as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "in its step\n"
        with process("held.py", url_of(durable_storage), "next") as following:
            killed.kill()
            assert following.communicate("go on\n", timeout=60)[0] == "in its step\n['killed', 'next', 'held']\n"


def test_processes_that_fork_from_one_where_the_agent_was_built_are_told_apart(
    durable_storage: CheckpointerConfig,
) -> None:
    with process("preloaded.py", url_of(durable_storage)) as preloaded:
        assert preloaded.communicate(timeout=60)[0] == "runs\n['first', 'second', 'held']\n"


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_crash_before_the_first_checkpoint_does_not_lose_the_input(
    nursery: Nursery, durable_storage: CheckpointerConfig, durability: str
) -> None:
    assert nursery.run([KILLED_INPUT, url_of(durable_storage), durability]).returncode == -signal.SIGKILL
    with (
        AgentFactory(Said).add(lambda state: {"said": ["done"]}, "die").with_checkpointer(durable_storage).build() as a
    ):
        thread = a.thread("t")
        assert thread.resume()["said"] == ["before", "answer", "start", "done"]
        with pytest.raises(NothingToResumeError):
            thread.resume()
        assert thread.state().values["said"] == ["before", "answer", "start", "done"]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_inputs_that_were_left_one_after_another_are_all_taken_up(
    nursery: Nursery, durable_storage: CheckpointerConfig, durability: Durability
) -> None:
    """Also where one who takes up the first is killed."""
    url = url_of(durable_storage)
    for arguments in ["exit", "later", "one"], ["exit", "first", "two"], ["exit", "recover"]:
        assert nursery.run([KILLED_INPUT, url, *arguments]).returncode == -signal.SIGKILL
    durable_storage = CheckpointerConfig.from_url(url, durability=durability)
    factory = AgentFactory(Said).add(lambda state: {"said": ["done"]}, "die").with_checkpointer(durable_storage)
    with factory.build() as agent:
        assert [(told.outcome, told.attempts) for told in agent.recover()] == [("done", 2), ("done", 1)]
        assert agent.thread("t").state().values["said"] == ["before", "answer", "one", "done", "two", "done"]
        assert agent.incomplete() == []
        with pytest.raises(NothingToResumeError):
            agent.thread("t").resume()


@pytest.mark.parametrize(("turn", "recovery"), [("first", "exit"), ("later", "exit"), ("later", "sync")])
def test_a_run_that_died_before_its_first_checkpoint_is_found(
    nursery: Nursery, durable_storage: CheckpointerConfig, turn: str, recovery: str
) -> None:
    """It is listed and taken up, so often as allowed, whether or not an attempt saves something before it dies too."""
    url = url_of(durable_storage)

    def dies(*arguments: str) -> None:
        assert nursery.run([KILLED_INPUT, url, *arguments]).returncode == -signal.SIGKILL

    dies("exit", turn)
    before = [] if turn == "first" else ["before", "answer"]
    factory = AgentFactory(Said).add(lambda state: {"said": ["done"]}, "die").with_checkpointer(durable_storage)
    with factory.build() as agent:
        (run,) = agent.incomplete()
        assert (run.thread_id, run.status, run.attempts) == ("t", "interrupted", 0)
    command = ["-m", "petal.cli", "threads", "list", "--json", "--status", "interrupted", "--db", url]
    found = json.loads(nursery.run(command).stdout)
    assert [one["thread_id"] for one in found] == ["t"]
    for _ in range(3):
        dies(recovery, "recover")
    with factory.build() as agent:
        (run,) = agent.incomplete()
        assert (run.status, run.attempts, run.error) == ("dead", 3, "its process ended while it ran")
        assert [(told.outcome, told.attempts) for told in agent.recover(again=True)] == [("done", 1)]
        assert agent.thread("t").state().values["said"] == [*before, "start", "done"]
        assert agent.incomplete() == []
        assert list(agent.recover()) == []
