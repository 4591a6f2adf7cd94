"""Processes that fork: what was open already stays with the one that opened it, and nothing waits for ever."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from nursery import Nursery

from petal.core.config.checkpointer import CheckpointerConfig

HERE = Path(__file__).parent
ENGINES = pytest.mark.parametrize("engine", ["petal", "langgraph"])


def lines(nursery: Nursery, script: str, *arguments: str, env: Mapping[str, str] | None = None) -> list[str]:
    ended = nursery.run([str(HERE / script), *arguments], env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@ENGINES
def test_an_agent_that_was_used_before_a_fork_stays_with_its_process(
    nursery: Nursery, durable_storage: CheckpointerConfig, engine: str
) -> None:
    """The other one has neither its threads nor its connections: it is told so, and ends as it would have."""
    assert durable_storage.config is not None
    url = durable_storage.config.get("connection_string") or f"sqlite:///{durable_storage.config['db_file']}"
    refused = "the checkpointer was opened before this process forked from another one, which has it"
    assert lines(nursery, "used.py", url, engine) == [
        *[f"sync: {refused}"] * 2,
        *[f"async: {refused}"] * 2,
        "['first', 'done', 'second', 'done']",
    ]


@ENGINES
def test_a_process_that_forked_has_what_was_in_memory_by_then(nursery: Nursery, engine: str) -> None:
    assert lines(nursery, "used.py", "memory://", engine) == [
        "['first', 'done', 'sync', 'done']",
        "sync: ['first', 'done', 'sync', 'done']",
        "['first', 'done', 'sync', 'done', 'async', 'done']",
        "async: ['first', 'done', 'sync', 'done', 'async', 'done']",
        "['first', 'done', 'second', 'done']",
    ]


@ENGINES
def test_a_process_may_fork_in_the_debug_mode_of_asyncio(nursery: Nursery, tmp_path: Path, engine: str) -> None:
    """There a loop says that it is another thread's, which kept all that came behind it from hearing of the fork."""
    env = {**os.environ, "PYTHONASYNCIODEBUG": "1"}
    said = lines(nursery, "used.py", f"sqlite:///{tmp_path / 'runs.db'}", engine, env=env)
    assert said[-1] == "['first', 'done', 'second', 'done']"


def test_a_step_may_fork(nursery: Nursery) -> None:
    """Also an async one, whose thread is that of the agent's loop."""
    assert lines(nursery, "forking_step.py") == ["['child', 'done']", "['parent', 'done']"]


def test_a_process_outlives_the_one_that_it_forked_from(nursery: Nursery) -> None:
    """Its runs are its own: they take turns, and none is taken for dead, as they were under the other one's name."""
    said = ["first", "done", "second", "done", "third", "done"]
    assert lines(nursery, "outlived.py") == [str(said)]
