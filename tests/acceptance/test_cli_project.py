"""`petal new`, and the commands that look at an agent without running it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from nursery import Nursery

Petal = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def petal(nursery: Nursery, tmp_path: Path) -> Petal:
    """Runs the command in an empty folder, or one below it."""

    def run(*words: str, inside: str = ".", **variables: str) -> subprocess.CompletedProcess[str]:
        return nursery.run(["-m", "petal.cli", *words], tmp_path / inside, {**os.environ, **variables})

    return run


def test_a_new_project_runs_at_once(petal: Petal, tmp_path: Path) -> None:
    """Each command that its README shows works, one after the other."""
    made = petal("new", "bee")
    assert made.returncode == 0, made.stderr
    assert made.stdout == (
        "Made bee with .gitignore, README.md, agent.yaml, steps.py. Now:\n\n"
        '  cd bee\n  petal run agent.yaml --message "my name is Ada"\n'
    )
    files = {path.name for path in (tmp_path / "bee").iterdir()}
    assert files == {".gitignore", "README.md", "agent.yaml", "steps.py"}
    assert yaml.safe_load((tmp_path / "bee" / "agent.yaml").read_text())["name"] == "bee"
    assert petal("run", "agent.yaml", "--message", "my name is Ada", inside="bee").stdout == "Nice to meet you, Ada!\n"
    assert petal("run", "agent.yaml", "--thread", "ada", "--message", "my name is Ada", inside="bee").returncode == 0
    chatted = subprocess.run(
        [sys.executable, "-m", "petal.cli", "chat", "agent.yaml", "--thread", "ada"],
        cwd=tmp_path / "bee",
        input="what is my name?\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert chatted.stdout == "Your name is Ada.\n"
    history = petal("threads", "history", "ada", "--agent", "agent.yaml", inside="bee")
    assert history.stdout.count("ran count") == 2
    shown = petal("threads", "show", "ada", "--agent", "agent.yaml", "--json", inside="bee")
    assert json.loads(shown.stdout)["state"]["turns"] == 2


def test_a_folder_that_holds_something_is_left_alone(petal: Petal, tmp_path: Path) -> None:
    """Nothing is written into it; an empty one will do."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    refused = petal("new", "full")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "petal: full exists and is not empty; nothing was changed. Choose another name.\n"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["note"]
    (tmp_path / "empty").mkdir()
    assert json.loads(petal("new", "empty", "--json").stdout)["folder"] == "empty"
    assert petal("new", "full/note").returncode == 1
    assert petal("new", "-n").returncode == 2
    assert petal("new", "what?").returncode == 2


def test_a_valid_file_is_described(petal: Petal, tmp_path: Path) -> None:
    """Its name, steps and storage; nothing is opened."""
    petal("new", "bee")
    valid = petal("validate", "agent.yaml", inside="bee")
    assert (valid.returncode, valid.stderr) == (0, "")
    assert valid.stdout.splitlines() == [
        "Agent    bee",
        "Steps    count (custom)",
        "         chat (llm, demo:)",
        f"Storage  sqlite:///{tmp_path / 'bee' / 'runs.db'}",
        "agent.yaml is valid.",
    ]
    assert not (tmp_path / "bee" / "runs.db").exists()
    assert json.loads(petal("validate", "agent.yaml", "--json", inside="bee").stdout)["valid"] is True


def test_mistakes_are_told_with_their_places(petal: Petal, tmp_path: Path) -> None:
    """All of them, for people and for programs."""
    (tmp_path / "wrong.yaml").write_text(
        'llm: "demo:"\nsteps:\n  - {type: llm, name: one, promt: hi}\n  - {type: llm, name: two, retry: none}\n'
    )
    told = petal("validate", "wrong.yaml")
    assert (told.returncode, told.stdout) == (1, "")
    assert [line[: line.index("]") + 1] for line in told.stderr.splitlines()] == [
        "petal: wrong.yaml:3: steps[0]",
        "petal: wrong.yaml:4: steps[1]",
    ]
    found = json.loads(petal("validate", "wrong.yaml", "--json").stdout)
    assert found["valid"] is False
    assert [(mistake["line"], mistake["key"]) for mistake in found["mistakes"]] == [
        (3, "steps[0].promt"),
        (4, "steps[1].retry"),
    ]


def test_a_mistake_of_the_graph_is_told_with_its_file(petal: Petal, tmp_path: Path) -> None:
    """Names of nodes are looked at when the graph is put together; a prompt has its line."""
    (tmp_path / "names.yaml").write_text(
        'llm: "demo:"\nsteps:\n  - {type: llm, name: one, approval: true}\n  - {type: llm, name: approve_one}\n'
    )
    told = petal("validate", "names.yaml")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("petal: names.yaml: Step 'approve_one' has the name of the node that asks before")
    (tmp_path / "prompt.yaml").write_text(
        'llm: "demo:"\nsteps: [{type: llm, name: one, config: {system_prompt: "For {nme}"}}]\n'
    )
    told = petal("validate", "prompt.yaml")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(
        "petal: prompt.yaml:2: steps[0].config.system_prompt: The prompt of step 'one' names {nme}"
    )


def test_odd_ways_are_warned_of(petal: Petal, tmp_path: Path) -> None:
    """They are no mistakes: a function may know another way."""
    (tmp_path / "ways.yaml").write_text(
        'llm: "demo:"\nsteps:\n  - {type: llm, name: one, next: three}\n  - {type: llm, name: two}\n'
        "  - {type: llm, name: three, next: one}\n"
    )
    told = petal("validate", "ways.yaml")
    assert told.returncode == 0
    assert told.stdout.endswith("ways.yaml is valid.\n")
    assert told.stderr.splitlines() == [
        "petal: ways.yaml:3: steps[0]: A run never ends from here on: the ways behind 'one', 'three' lead back to them "
        "only.",
        "petal: ways.yaml:4: steps[1]: No way leads here from the first step; it runs only if a function says so by a "
        "Command or a Send.",
    ]
    found = json.loads(petal("validate", "ways.yaml", "--json").stdout)
    assert (found["valid"], found["mistakes"]) == (True, [])
    assert [(warning["line"], warning["key"]) for warning in found["warnings"]] == [(3, "steps[0]"), (4, "steps[1]")]


def test_a_model_that_cannot_be_had_is_a_mistake(petal: Petal, tmp_path: Path) -> None:
    """Named with its step; a key is not asked for."""
    (tmp_path / "models.yaml").write_text(
        "steps:\n  - {type: llm, name: one, config: {llm: 'opnai:gpt-4o'}}\n"
        "  - {type: llm, name: two, config: {llm: 'openai:gpt-4o'}}\n"
    )
    told = petal("validate", "models.yaml")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("petal: models.yaml: steps: one: No model provider 'opnai'")
    assert len(told.stderr.splitlines()) == 1


def test_a_graph_is_drawn_without_running(petal: Petal) -> None:
    """Mermaid text, as it is or in JSON."""
    petal("new", "bee")
    drawn = petal("diagram", "agent.yaml", inside="bee")
    assert drawn.returncode == 0
    assert "count --> chat;" in drawn.stdout
    as_json = json.loads(petal("diagram", "agent.yaml", "--json", inside="bee").stdout)
    assert (as_json["name"], as_json["mermaid"].rstrip("\n") + "\n") == ("bee", drawn.stdout)


def test_the_schema_fits_a_new_project(petal: Petal, tmp_path: Path) -> None:
    """It is a schema, and the starter project's file is an instance of it."""
    petal("new", "bee")
    schema = json.loads(petal("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((tmp_path / "bee" / "agent.yaml").read_text()), schema)


def test_an_unknown_command_is_wrong_use(petal: Petal) -> None:
    """Exit code 2, as for no command at all."""
    assert petal("rnu").returncode == 2
    assert petal().returncode == 2
    assert petal("--version").stdout == "petal 0.1.0\n"


def test_colour_is_only_for_terminals(petal: Petal, tmp_path: Path) -> None:
    """A pipe gets plain text."""
    petal("new", "bee")
    petal("run", "agent.yaml", "--thread", "t", "--message", "hi", inside="bee")
    assert "\x1b" not in petal("threads", "list", "--db", "runs.db", inside="bee").stdout
    assert "\x1b" not in petal("--help").stdout
