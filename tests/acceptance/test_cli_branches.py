"""`petal threads branches`, `rewind` and `fork` on real databases, without the agent."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import pytest
from nursery import Nursery

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory

HELD = Path(__file__).parent / "held.py"

Petal = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class Order:
    number: int


class Orders(TypedDict, total=False):
    number: int
    order: Order


def take_order(state: Orders) -> Orders:
    """Makes a value of one's own type."""
    return {"order": Order(state["number"])}


@pytest.fixture
def petal(petal: Petal) -> Petal:
    """Runs `petal threads` in an empty folder."""
    return partial(petal, "threads")


@pytest.fixture
def kept(durable_storage: CheckpointerConfig, database: str) -> str:
    """A database with a conversation, and a thread that waits for an answer."""
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(durable_storage).build() as agent:
        agent.invoke("my name is Ada", thread_id="user-1")
        agent.invoke("what is my name?", thread_id="user-1")
    asking = AgentFactory().with_chat(llm="demo:").with_approval("Shall I answer?")
    with asking.with_checkpointer(durable_storage).build() as agent:
        agent.invoke("hello", thread_id="waits")
    return database


def test_a_rewind_is_told_and_undone(petal: Petal, kept: str, durable_storage: CheckpointerConfig) -> None:
    """The old head keeps a name, by which it is shown and gone back to; each line is listed apart."""
    history = ["history", "user-1", "--db", kept]
    old = [point["checkpoint_id"] for point in json.loads(petal(*history, "--json").stdout)]
    done = petal("rewind", "user-1", "--db", kept)
    assert (done.returncode, done.stderr) == (0, "")
    fields = dict(re.split("  +", line, maxsplit=1) for line in done.stdout.splitlines())
    assert (fields["Thread"], fields["Status"], fields["Kept as"]) == ("user-1", "done", "before-rewind-1")
    assert fields["Last said"] == "Agent: Nice to meet you, Ada!"
    assert fields["Go back"].startswith("petal threads rewind user-1 --to before-rewind-1")

    now, apart = petal(*history).stdout.split("\n\n")
    title, columns, head, *_ = now.splitlines()
    assert (title, columns.split()[-1]) == ("The line of the latest state:", "DID")
    assert head.endswith(f"went back to {head.split()[-1]}")
    assert old[3].startswith(head.split()[-1])
    title, columns, head, *more = apart.splitlines()
    assert title == f"Branch before-rewind-1, parted at {more[-1].split()[0]}:"
    assert (columns.split()[-1], head.split()[-1], len(more)) == ("NAME", "before-rewind-1", 3)
    told = json.loads(petal(*history, "--json", "-n", "2").stdout)
    assert [point["checkpoint_id"] for point in told[2:]] == old[:2]
    assert [point["names"] for point in told] == [[], [], ["before-rewind-1"], []]
    assert [(point["line"], point["parted"]) for point in told[1:3]] == [
        (told[0]["checkpoint_id"], None),
        (old[0], old[3]),
    ]
    assert told[0]["did"] == f"went back to {old[3]}"

    shown = json.loads(petal("show", "user-1", "-c", "before-rewind-1", "--db", kept, "--json").stdout)
    assert (shown["checkpoint_id"], len(shown["state"]["messages"])) == (old[0], 4)
    back = json.loads(
        petal("rewind", "user-1", "--to", "before-rewind-1", "--keep-as", "short", "--json", PETAL_DB=kept).stdout
    )
    assert (back["kept_as"], back["kept_checkpoint_id"]) == ("short", told[0]["checkpoint_id"])
    assert back["state"] == shown["state"]
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(durable_storage).build() as agent:
        assert agent.invoke("what is my name?", thread_id="user-1")["messages"][-1].text == "Your name is Ada."
        assert [branch.name for branch in agent.thread("user-1").branches()] == ["before-rewind-1", "short"]


def test_branches_are_named_listed_and_dropped(petal: Petal, kept: str) -> None:
    words = ["branches", "user-1", "--db", kept]
    assert petal(*words).stdout.startswith("No checkpoint of thread user-1 has a name; name the latest with: petal ")
    ids = [point["checkpoint_id"] for point in json.loads(petal("history", "user-1", "--db", kept, "--json").stdout)]
    assert petal(*words, "--name", "now").stdout == f"now now stands for checkpoint {ids[0]} of thread user-1.\n"
    assert petal(*words, "--name", "intro", "--at", ids[3]).returncode == 0
    assert petal(*words, "--name", "same", "--at", "intro").returncode == 0
    petal("rewind", "user-1", "--turns", "1", "--db", kept)
    columns, *rows = petal(*words).stdout.splitlines()
    assert re.split("  +", columns) == ["NAME", "CHECKPOINT", "CREATED", "WHY", "SINCE IT PARTED"]
    assert [(row.split()[0], *re.split("  +", row)[-2:]) for row in rows] == [
        ("now", "named", "1 turn, 2 steps"),
        ("intro", "named", "led to the latest state"),
        ("same", "named", "led to the latest state"),
        ("before-rewind-1", "rewind", "1 turn, 2 steps"),
    ]
    assert petal(*words, "--drop", "same").stdout == "same is dropped; its checkpoints stay until a prune takes them.\n"
    left = json.loads(petal(*words, "--drop", "now", "--json").stdout)
    assert [(branch["name"], branch["checkpoint_id"]) for branch in left] == [
        ("intro", ids[3]),
        ("before-rewind-1", ids[0]),
    ]
    assert left[0].keys() == {"name", "checkpoint_id", "created", "why", "is_head", "parted", "steps", "turns"}


def test_a_fork_goes_on_by_itself(petal: Petal, kept: str, durable_storage: CheckpointerConfig) -> None:
    """From a named state, from the latest, and with an open question."""
    petal("rewind", "user-1", "--db", kept)
    forked = petal("fork", "user-1", "--at", "before-rewind-1", "--to", "what-if", "--db", kept)
    assert (forked.returncode, forked.stderr) == (0, "")
    fields, going_on = forked.stdout.split("\n\n")
    assert "Thread       what-if\n" in fields
    assert fields.endswith("Forked from  thread user-1")
    assert going_on.startswith("Go on:   petal run AGENT.yaml --thread what-if ")
    with AgentFactory().with_chat(llm="demo:").with_checkpointer(durable_storage).build() as agent:
        assert len(agent.invoke("what is my name?", thread_id="what-if")["messages"]) == 6
    fork = json.loads(petal("fork", "user-1", "--db", kept, "--json").stdout)
    assert fork["forked_from"]["thread_id"] == "user-1"
    assert len(fork["state"]["messages"]) == 2
    assert json.loads(petal("show", fork["thread_id"], "--db", kept, "--json").stdout)["state"] == fork["state"]
    asking = petal("fork", "waits", "--to", "waits too", PETAL_DB=kept).stdout
    assert "It asks: Shall I answer?" in asking
    assert "--thread 'waits too' --resume --answer yes" in asking


def test_a_run_that_goes_on_is_not_rewound(nursery: Nursery, petal: Petal, database: str) -> None:
    """It is told so, and the run ends as if nothing had been asked."""
    command = [str(HELD), database if "://" in database else f"sqlite:///{database}"]
    assert nursery.run([*command, "first"], text="go on\n").returncode == 0
    rewind = ["rewind", "t", "--keep-as", "both", "--db", database]
    with nursery.start([*command, "second"], reads=True) as running:
        assert running.stdout.readline() == "in its step\n"
        refused = petal(*rewind)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == (
            "petal: a run has thread 't' now, and nothing was changed; rewind it when that run has ended.\n"
        )
        assert running.communicate("go on\n", timeout=60)[0] == "['first', 'held', 'second', 'held']\n"
    assert json.loads(petal("branches", "t", "--db", database, "--json").stdout) == []
    assert petal(*rewind).returncode == 0
    assert json.loads(petal("show", "t", "--db", database, "--json").stdout)["state"] == {"said": ["first", "held"]}
    assert len(json.loads(petal("show", "t", "-c", "both", "--db", database, "--json").stdout)["state"]["said"]) == 4


def test_values_of_own_types_come_through_a_rewind_and_a_fork(
    petal: Petal, durable_storage: CheckpointerConfig, database: str
) -> None:
    """Although the command knows nothing of them."""
    with AgentFactory(Orders).add(take_order).with_checkpointer(durable_storage).build() as agent:
        for number in (1, 2):
            agent.invoke({"number": number}, thread_id="t")
        for words in (["rewind", "t"], ["fork", "t", "--to", "fork", "--at", "before-rewind-1"]):
            done = petal(*words, "--db", database)
            assert (done.returncode, done.stderr) == (0, "")
        assert agent.thread("t").state().values == {"number": 1, "order": Order(1)}
        assert agent.thread("fork").state().values == {"number": 2, "order": Order(2)}
