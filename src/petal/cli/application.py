"""All commands under one roof."""

from __future__ import annotations

from typing import Annotated

import typer

from petal.cli import chat, check, convert, db, diagram, new, recover, run, schema, threads, validate
from petal.cli.failures import Commands

app = typer.Typer(
    name="petal",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 3 waiting for an answer, 130 stopped with ctrl-c.",
)

for command in (
    new.new,
    run.run,
    chat.chat,
    recover.recover,
    check.check,
    validate.validate,
    diagram.diagram,
    schema.schema,
    convert.convert,
):
    app.command()(command)
app.add_typer(threads.app, name="threads")
app.add_typer(db.app, name="db")


def _version(wanted: bool) -> None:
    if wanted:
        from petal import __version__

        typer.echo(f"petal {__version__}")
        raise typer.Exit


@app.callback()
def petal(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """LangGraph agents that survive: every step is on disk before the next begins.

    Begin with `petal new my-agent`.
    """
