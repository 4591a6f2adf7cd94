"""Processes are killed within their runs; `petal recover`, in other processes, goes on with what they left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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

Petal = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chain.py").write_text(STEPS)
    (tmp_path / "agent.yaml").write_text(AGENT)
    return tmp_path


@pytest.fixture
def petal(folder: Path, durable_storage: CheckpointerConfig) -> Petal:
    """Starts the command on the storage."""
    assert durable_storage.config is not None
    url = durable_storage.config.get("db_file") or durable_storage.config["connection_string"]

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "petal.cli", *words],
            cwd=folder,
            env={**os.environ, "PETAL_DB": str(url), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
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
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.kill()
        process.communicate()
    (folder / "wait").unlink()


def effects(folder: Path) -> list[str]:
    return (folder / "effects").read_text().splitlines()


def listed(petal: Petal, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ended(petal("threads", "list", "--json", *words)))
    return found


def test_two_machines_recover_at_once_and_each_step_runs_once(petal: Petal, folder: Path) -> None:
    """The killed ones' leases run out first: until then they may be alive."""
    names = ["a", "b", "c"]
    killed(petal, folder, *names)
    outcomes: dict[str, str] = {}
    while len(outcomes) < len(names):
        for recovering in [petal("recover", "agent.yaml", "--json") for _ in range(2)]:
            for line in ended(recovering).splitlines():
                told = json.loads(line)
                assert told["outcome"] in ("done", "held", "whole")
                if told["outcome"] == "done":
                    assert told["thread_id"] not in outcomes
                    outcomes[told["thread_id"]] = told["outcome"]
    assert sorted(effects(folder)) == sorted(f"{name} {step}" for name in names for step in ("one", "two", "three"))
    assert ended(petal("recover", "agent.yaml")) == "No run died.\n"
    assert {thread["status"] for thread in listed(petal)} == {"done"}


def test_what_dies_each_time_is_given_up(petal: Petal, folder: Path) -> None:
    """By an error, within one call; with its process, after so many calls, and it keeps no other back."""
    for kind, name in (("fail", "x"), ("kill", "y"), ("fail", "z")):
        (folder / f"{kind}-{name}").touch()
        petal("run", "agent.yaml", "--thread", name, "--input", json.dumps({"input": name})).communicate()
    (folder / "fail-z").unlink()
    while any(thread["status"] == "running" for thread in listed(petal)):
        pass
    assert {thread["thread_id"]: thread["status"] for thread in listed(petal)} == {
        "x": "failed",
        "y": "interrupted",
        "z": "failed",
    }
    assert [thread["thread_id"] for thread in listed(petal, "--status", "unfinished")] == ["y"]
    assert "y" in ended(petal("recover", "agent.yaml", "--dry-run"))

    calls = 0
    while [thread["thread_id"] for thread in listed(petal, "--status", "dead")] != ["y", "x"]:
        process = petal("recover", "agent.yaml", "--attempts", "2")
        process.communicate(timeout=60)
        calls += process.returncode == 9
        assert calls <= 2
    assert calls == 2
    assert effects(folder).count("y killed") == 3
    assert effects(folder).count("z three") == 1
    output = ended(petal("recover", "agent.yaml", "--attempts", "2"), 1)
    assert sorted(output.splitlines()) == [
        "x: given up (attempt 2): ValueError: no bread",
        "y: given up (attempt 2): its process ended while it ran",
    ]
    (folder / "fail-x").unlink()
    again = json.loads(ended(petal("recover", "agent.yaml", "--thread", "x", "--again", "--json")))
    assert (again["outcome"], again["attempts"]) == ("done", 1)
    runs = json.loads(ended(petal("recover", "agent.yaml", "--dry-run", "--json")))
    assert [(run["thread_id"], run["status"], run["attempts"]) for run in runs] == [("y", "dead", 2)]


def test_a_check_tells_which_threads_cannot_go_on(petal: Petal, folder: Path) -> None:
    """With a renamed step, and a newer version; nothing is written."""
    killed(petal, folder, "a")
    ended(petal("run", "agent.yaml", "--thread", "b", "--input", json.dumps({"input": "b"})))
    assert ended(petal("check", "agent.yaml")) == "2 threads checked; all can go on.\n"
    renamed = AGENT.replace("name: two", "name: deux")
    (folder / "renamed.yaml").write_text(renamed)
    output = ended(petal("check", "renamed.yaml"), 1)
    assert output.startswith("a: Thread 'a' would go on at step 'two', which the agent no longer has.")
    assert output.endswith("1 of 2 threads cannot go on.\n")
    lines = [json.loads(line) for line in ended(petal("check", "renamed.yaml", "--json"), 1).splitlines()]
    assert {line["thread_id"]: line["error"] for line in lines} == {"a": "StepGoneError", "b": None}
    assert "no such file" in ended(petal("check", "agent.yaml", "--db", "nothing.db"), 1)
    assert not (folder / "nothing.db").exists()
    ended(petal("check", "agent.yaml", "--db", "memory://"), 2)
    ended(petal("threads", "list", "--status", "lost"), 2)
