"""`petal new`: a project that runs at once."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from petal.cli.options import AsJson, Debug
from petal.cli.rendering import print_json
from petal.errors import PetalError

FILES = {"agent.yaml": "agent.yaml", "steps.py": "steps.py", "README.md": "README.md", "gitignore": ".gitignore"}
"""The templates, and what they are called in the project."""

NEXT = 'petal run agent.yaml --message "my name is Ada"'


def new(
    name: Annotated[
        Path, typer.Argument(metavar="NAME", help="The folder to make; its name is the agent's.", show_default=False)
    ],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a starter project: an agent that remembers, without a key or a server."""
    agent = name.absolute().name
    if not re.fullmatch(r"\w[\w. -]*", agent):
        raise typer.BadParameter(f"{agent!r} is no name for an agent; use letters, digits, - and _.", param_hint="NAME")
    _make(name, agent)
    if as_json:
        print_json({"folder": str(name), "files": sorted(FILES.values()), "next": NEXT})
        return
    print(f"Made {name} with {', '.join(sorted(FILES.values()))}. Now:\n\n  cd {_quoted(name)}\n  {NEXT}")


def _make(folder: Path, agent: str) -> None:
    """Write the files into a folder that is new, or empty.

    Raises:
        PetalError: If the folder holds something, or cannot be written.
    """
    templates = files("petal.cli") / "templates"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PetalError(f"{folder} exists and is not empty; nothing was changed. Choose another name.")
        folder.mkdir(parents=True, exist_ok=True)
        for template, called in FILES.items():
            text = (templates / template).read_text("utf-8")
            (folder / called).write_text(
                Template(text).safe_substitute(name=agent, name_json=json.dumps(agent)), "utf-8"
            )
    except OSError as error:
        raise PetalError(f"{folder} cannot be written: {error.strerror}.") from error


def _quoted(folder: Path) -> str:
    import shlex

    return shlex.quote(str(folder))
