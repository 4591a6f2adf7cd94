"""Everything that can be typed is documented, and help is quick."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from petal.cli.application import app
from petal.cli.failures import ExitCode

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()

HEAVY = {"langchain", "langchain_core", "langgraph", "pydantic", "psycopg", "sqlite3"}


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each command that does something, under its whole name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for part, inner in below.items():
        yield from commands(inner, f"{name} {part}")


COMMANDS = dict(commands(get_command(app), "petal"))


def section(name: str) -> str:
    """What the page says of one command."""
    found = re.search(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section '## {name}'"
    return found[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_documented(name: str) -> None:
    """Its section shows each of its options; a short name and a table say what they mean."""
    text = section(name)
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "argument":
            assert parameter.metavar in text
            continue
        for option in (*parameter.opts, *parameter.secondary_opts):
            if option in ("--help", "-h"):
                continue
            whole = text if option.startswith("--") else PAGE
            assert re.search(rf"[\[`]{option}\b", whole), f"{option} of {name}"
            assert re.search(rf"^\|[^|]*`{option}\b", PAGE, re.MULTILINE), f"{option} is in no table"


def test_nothing_is_documented_that_is_not_there() -> None:
    """Each section of a command, and each option in it, exists."""
    sections = re.findall(r"^## (petal .*)$", PAGE, re.MULTILINE)
    assert sorted(sections) == sorted(COMMANDS)
    known = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) <= known | {"--version", "--help"}


def test_every_exit_code_is_documented() -> None:
    """The table has each code once."""
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == [str(int(code)) for code in ExitCode]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    """A sentence each, and one for the command."""
    assert COMMANDS[name].help
    for parameter in COMMANDS[name].params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.help


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [(["--version"], {*HEAVY, "typer", "rich"}), (["--help"], HEAVY), (["run", "--help"], HEAVY - {"pydantic"})],
    ids=["version", "help", "run help"],
)
@pytest.mark.usefixtures("unmeasured")
def test_what_needs_no_agent_imports_none(arguments: list[str], absent: set[str]) -> None:
    """Help and version don't wait for LangGraph."""
    script = (
        "import json, sys\n"
        f"sys.argv = {['petal', *arguments]!r}\n"
        "from petal.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "petal" in done.stdout.lower()
    assert not absent & set(json.loads(done.stderr.splitlines()[-1]))
