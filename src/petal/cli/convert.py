"""`petal convert`: a database copied into Petal's tables."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from petal.cli.databases import configured, quiet_about_types, with_options
from petal.cli.failures import note
from petal.cli.options import AsJson, Debug, optional
from petal.cli.rendering import print_json
from petal.errors import CheckpointerError

if TYPE_CHECKING:
    from petal.checkpoints import Progress
    from petal.core.config.checkpointer import CheckpointerConfig


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="The database to copy: a file or a postgresql:// URL.", show_default=False
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="Where to: a file or a postgresql:// URL.", show_default=False),
    ],
    allow: Annotated[
        list[str] | None,
        optional(
            "--allow",
            metavar="MODULE:TYPE",
            help="A type of yours that LangGraph's tables hold, or your state's; may be given several times.",
        ),
    ] = None,
    source_engine: Annotated[
        str | None,
        optional(
            "--source-engine",
            metavar="ENGINE",
            help="Whose tables to copy, langgraph or petal. Default: those that are there.",
        ),
    ] = None,
    source_schema: Annotated[
        str | None, optional("--source-schema", metavar="NAME", help="The schema of the source's tables.")
    ] = None,
    target_schema: Annotated[
        str | None, optional("--target-schema", metavar="NAME", help="The schema of the target's tables.")
    ] = None,
    source_key: Annotated[
        str | None,
        optional(
            "--source-key-env", metavar="VARIABLE", help="The environment variable with the source's encryption keys."
        ),
    ] = None,
    target_key: Annotated[
        str | None,
        optional(
            "--target-key-env",
            metavar="VARIABLE",
            help="The environment variable with the keys to encrypt the target with.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Copy a database into Petal's tables: LangGraph's or Petal's, SQLite or PostgreSQL, all that is in it.

    A thread is copied whole or not at all, a long one in parts, and read back before it counts. Interrupted, it goes on
    where it was when it is called again. The source is not changed.

    `petal convert langgraph.db petal.db`
    """
    there = configured(target, "TARGET", schema=target_schema, encryption_key_env=target_key, engine="petal")
    here = configured(source, "SOURCE", schema=source_schema, encryption_key_env=source_key)
    here = with_options(here, engine=source_engine or _engine(here, there))
    from petal.checkpoints import convert as converted
    from petal.types.references import resolve

    types = [resolve(name, folder=Path.cwd()) for name in allow or ()]
    line = ProgressLine()
    try:
        with quiet_about_types():
            done = converted(here, there, allow=types, progress=line)
    finally:
        line.end()
    if as_json:
        print_json(asdict(done))
        return
    before = f", beside {done.resumed} that were there already" if done.resumed else ""
    copied = f"{_counted(done.threads, 'thread')} with {_counted(done.checkpoints, 'checkpoint')}"
    print(f"Copied and checked {copied}{before}.")
    if done.already:
        print(f"There already, and the same: {_counted(done.already, 'thread')}.")


class ProgressLine:
    """Tells on stderr how far it is: on a terminal in one line that changes, else at each tenth of the way."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._tenth = 0
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        tenth = 10 * progress.checkpoints // max(1, progress.of_checkpoints)
        text = (
            f"{progress.threads} of {_counted(progress.of_threads, 'thread')}, "
            f"{progress.checkpoints} of {_counted(progress.of_checkpoints, 'checkpoint')}"
        )
        if self._terminal:
            sys.stderr.write(f"\r{text:<{self._width}}")
            sys.stderr.flush()
            self._width = len(text)
        elif tenth > self._tenth:
            note(text)
        self._tenth = tenth

    def end(self) -> None:
        """Leave the line that changes."""
        if self._width:
            print(file=sys.stderr, flush=True)


def _engine(here: CheckpointerConfig, there: CheckpointerConfig) -> str:
    """Whose tables to copy: those that are there, and if that is the target's own place, LangGraph's."""
    from petal.checkpoints import database_status

    if _place(here) == _place(there):
        if database_status(with_options(here, engine="langgraph")).engine is None:
            raise CheckpointerError(
                f"{here.where} is both the source and the target, and holds no tables of LangGraph's to copy into "
                "Petal's; name another target."
            )
        return "langgraph"
    status = database_status(here)
    if status.engine is None:
        raise CheckpointerError(
            f"{status.where} holds neither Petal's tables nor LangGraph's; there is nothing to copy."
        )
    return status.engine


def _place(config: CheckpointerConfig) -> tuple[str, str | None]:
    given = config.config or {}
    file = given.get("db_file")
    return config.where if file is None else os.path.realpath(file), given.get("schema")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
