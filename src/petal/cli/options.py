"""The options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from petal.cli.failures import DEBUG

DB_VARIABLE = "PETAL_DB"


def _remember(context: typer.Context, wanted: bool) -> bool:
    context.meta[DEBUG] = wanted
    return wanted


def optional(*names: str, metavar: str, help: str, **how: Any) -> Any:
    """An option with a value that is None if it is left out."""
    return typer.Option(*names, metavar=metavar, help=help, show_default=False, **how)


def at_least_one(given: str | int) -> int:
    """The number that an option's value is.

    Raises:
        typer.BadParameter: If it is none, or not above zero.
    """
    try:
        number = int(given)
    except ValueError:
        number = 0
    if number < 1:
        raise typer.BadParameter(f"{given!r} is no whole number above 0; write one, such as 10.")
    return number


AgentFile = Annotated[
    Path, typer.Argument(metavar="AGENT.yaml", help="The file that describes the agent.", show_default=False)
]
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        envvar=DB_VARIABLE,
        help="Keep state here: a file such as runs.db, or a postgresql:// URL. Default: where the agent's file says.",
    ),
]
KeptDatabase = Annotated[
    str | None,
    typer.Option(
        "--db", metavar="URL", envvar=DB_VARIABLE, help="The database: a file such as runs.db, or a postgresql:// URL."
    ),
]
KeptBy = Annotated[
    Path | None, optional("--agent", metavar="AGENT.yaml", help="The agent whose database it is, if none is named.")
]
ThreadId = Annotated[
    str,
    typer.Argument(metavar="ID", help="The thread; its first letters do while they are unique.", show_default=False),
]
ThreadName = Annotated[
    str | None, optional("--thread", "-t", metavar="ID", help="The conversation. Default: a new one, whose id is told.")
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON for programs.")]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", metavar="", envvar="PETAL_DEBUG", callback=_remember, help="Show the traceback of a failure."
    ),
]
