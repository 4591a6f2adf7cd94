"""The options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from petal.cli.failures import DEBUG

DB_VARIABLE = "PETAL_DB"


def _remember(context: typer.Context, wanted: bool) -> bool:
    context.meta[DEBUG] = wanted
    return wanted


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
    Path | None,
    typer.Option(
        "--agent", metavar="AGENT.yaml", help="The agent whose database it is, if none is named.", show_default=False
    ),
]
ThreadName = Annotated[
    str | None,
    typer.Option(
        "--thread",
        "-t",
        metavar="ID",
        help="The conversation. Default: a new one, whose id is told.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON for programs.")]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", metavar="", envvar="PETAL_DEBUG", callback=_remember, help="Show the traceback of a failure."
    ),
]
