"""Processes are killed within their runs; `petal recover`, in other processes, goes on with what they left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nursery import Nursery, Process

from petal.core.config.checkpointer import CheckpointerConfig

STEPS = '''
"""Steps that write down that they ran, and wait or die where a file says so."""

import os
import time
from pathlib import Path

HERE = Path(__file__).parent


def _ran(name, state):
    with (HERE / "effects").open("a") as file:
        file.write(f"{state['input']} {name}\\n")


def one(state):
    _ran("one", state)
    return {}


def two(state):
    if (HERE / "wait").exists():
        print("waiting", flush=True)
        time.sleep(60)
    if (HERE / f"kill-{state['input']}").exists():
        _ran("killed", state)
        os._exit(9)
    if (HERE / f"fail-{state['input']}").exists():
        raise ValueError("no bread")
    _ran("two", state)
    return {}


def three(state):
    _ran("three", state)
    return {}
'''
AGENT = """
name: chain
steps:
  - {type: custom, name: one, config: {function: "chain:one"}}
  - {type: custom, name: two, config: {function: "chain:two"}}
  - {type: custom, name: three, config: {function: "chain:three"}}
"""

Petal = Callable[..., "Process"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chain.py").write_text(STEPS)
    (tmp_path / "agent.yaml").write_text(AGENT)
    return tmp_path


@pytest.fixture
def petal(nursery: Nursery, folder: Path, durable_storage: CheckpointerConfig) -> Petal:
    """Starts the command on the storage."""
    assert durable_storage.config is not None
    url = durable_storage.config.get("db_file") or durable_storage.config["connection_string"]

    def start(*words: str) -> Process:
        variables = {**os.environ, "PETAL_DB": str(url), "COLUMNS": "200"}
        return nursery.start(["-m", "petal.cli", *words], folder, variables, together=True)

    return start


def ended(process: Process, code: int = 0) -> str:
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code, output
    return output


def killed(petal: Petal, folder: Path, *threads: str) -> None:
    """Runs that are killed while their second step waits."""
    (folder / "wait").touch()
    processes = [
        petal("run", "agent.yaml", "--thread", name, "--input", json.dumps({"input": name})) for name in threads
    ]
    for process in processes:
        assert "waiting\n" in iter(process.stdout.readline, "")
        process.kill()
        process.communicate()
    (folder / "wait").unlink()


def effects(folder: Path) -> list[str]:
    return (folder / "effects").read_text().splitlines()


def listed(petal: Petal, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ended(petal("threads", "list", "--json", *words)))
    return found


@pytest.mark.usefixtures("unmeasured")
def test_two_machines_recover_at_once_and_each_step_runs_once(petal: Petal, folder: Path) -> None:
    names = ["a", "b", "c"]
    killed(petal, folder, *names)
    assert {thread["thread_id"] for thread in listed(petal, "--status", "unfinished")} == set(names)
    done: list[str] = []
    for recovering in [petal("recover", "agent.yaml", "--json") for _ in range(2)]:
        told = [json.loads(line) for line in ended(recovering).splitlines()]
        assert {one["outcome"] for one in told} <= {"done", "held", "whole"}
        done += [one["thread_id"] for one in told if one["outcome"] == "done"]
    assert sorted(done) == names
    assert sorted(effects(folder)) == sorted(f"{name} {step}" for name in names for step in ("one", "two", "three"))
    assert ended(petal("recover", "agent.yaml")) == "No run died.\n"


@pytest.mark.parametrize("durable_storage", ["sqlite"], indirect=True)
def test_an_attempt_that_is_stopped_by_ctrl_c_does_not_count(petal: Petal, folder: Path) -> None:
    killed(petal, folder, "a")
    (folder / "wait").touch()
    for _ in range(2):
        stopped = petal("recover", "agent.yaml", "--attempts", "1")
        assert stopped.stdout is not None
        assert "waiting\n" in iter(stopped.stdout.readline, "")
        stopped.send_signal(signal.SIGINT)
        assert ended(stopped, 130).startswith("petal: stopped; ")
    (folder / "wait").unlink()
    assert ended(petal("recover", "agent.yaml", "--attempts", "1")) == "a: done (attempt 1)\n"


@pytest.mark.parametrize("durable_storage", ["sqlite"], indirect=True)
def test_what_dies_each_time_is_given_up(petal: Petal, folder: Path) -> None:
    """By an error, within one call; with its process, after so many calls, and it keeps no other back for good."""
    runs = []
    for kind, name in (("fail", "x"), ("kill", "y")):
        (folder / f"{kind}-{name}").touch()
        runs.append(petal("run", "agent.yaml", "--thread", name, "--input", json.dumps({"input": name})))
    assert [(run.communicate(), run.returncode)[1] for run in runs] == [1, 9]
    assert {one["thread_id"]: one["status"] for one in listed(petal)} == {"x": "failed", "y": "interrupted"}
    for _ in range(2):
        ended(petal("recover", "agent.yaml", "--attempts", "2"), 9)
    output = ended(petal("recover", "agent.yaml", "--attempts", "2"), 1)
    assert {line.partition(" (attempt")[0] for line in output.splitlines()} >= {"x: given up", "y: given up"}
    assert "y: given up (attempt 2): its process ended while it ran\n" in output
    assert "x: given up (attempt 2): ValueError: no bread\n" in output
    assert effects(folder).count("y killed") == 3
    (folder / "fail-x").unlink()
    again = json.loads(ended(petal("recover", "agent.yaml", "--thread", "x", "--again", "--json")))
    assert (again["outcome"], again["attempts"]) == ("done", 1)
    assert [one["thread_id"] for one in listed(petal, "--status", "dead")] == ["y"]
    left = json.loads(ended(petal("recover", "agent.yaml", "--dry-run", "--json")))
    assert [(run["thread_id"], run["status"], run["attempts"]) for run in left] == [("y", "dead", 2)]


def test_a_check_tells_which_threads_cannot_go_on(petal: Petal, folder: Path) -> None:
    """With a renamed step, and a newer version; nothing is written."""
    killed(petal, folder, "a")
    assert ended(petal("check", "agent.yaml")) == "1 thread checked; all can go on.\n"
    renamed = AGENT.replace("name: two", "name: deux")
    (folder / "renamed.yaml").write_text(renamed)
    output = ended(petal("check", "renamed.yaml"), 1)
    assert output.startswith("a: Thread 'a' would go on at step 'two', which the agent no longer has.")
    assert output.endswith("1 of 1 thread cannot go on.\n")
    lines = [json.loads(line) for line in ended(petal("check", "renamed.yaml", "--json"), 1).splitlines()]
    assert {line["thread_id"]: line["error"] for line in lines} == {"a": "StepGoneError"}
    assert "no such file" in ended(petal("check", "agent.yaml", "--db", "nothing.db"), 1)
    assert not (folder / "nothing.db").exists()
    ended(petal("check", "agent.yaml", "--db", "memory://"), 2)
    ended(petal("threads", "list", "--status", "lost"), 2)
