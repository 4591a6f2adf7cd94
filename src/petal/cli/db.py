"""`petal db`: what a database is, whether it is whole, and its upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petal.cli.databases import configured, quiet_about_types
from petal.cli.failures import ExitCode
from petal.cli.options import DB_VARIABLE, AsJson, Debug, optional
from petal.cli.rendering import print_fields, print_json, printable
from petal.cli.shortening import all_threads, whole_thread
from petal.errors import CheckpointerConfigurationError

if TYPE_CHECKING:
    from petal.checkpoints import DatabaseStatus, PetalSaver

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Look after a database.")

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        envvar=DB_VARIABLE,
        help="The database: a file such as runs.db, or a postgresql:// URL.",
        show_default=False,
    ),
]
Schema = Annotated[str | None, optional("--schema", metavar="NAME", help="The schema of the tables.")]
KeyVariable = Annotated[
    str | None, optional("--key-env", metavar="VARIABLE", help="The environment variable with the encryption keys.")
]

ADVICE = {
    "current": "",
    "older": "`petal db upgrade` brings it to this version's format; so does the next run.",
    "newer": "Upgrade petal to open it.",
    "langgraph": "It is opened as it is; `petal convert` copies it into Petal's tables.",
    "empty": "It holds no tables of Petal's or LangGraph's; a run makes them.",
}


@app.command("status")
def status(url: Url, schema: Schema = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Tell whose tables a database holds, their format and how much is in them. Nothing is changed."""
    from petal.checkpoints import database_status

    found = database_status(configured(url, "URL", schema=schema))
    if as_json:
        print_json(_as_json(found))
    else:
        print_fields(_fields(found))


@app.command("verify")
def verify(
    url: Url,
    thread: Annotated[
        str | None, optional("--thread", "-t", metavar="ID", help="Only this thread. Default: all.")
    ] = None,
    schema: Schema = None,
    key_variable: KeyVariable = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read every row, and list each that is damaged. It fails if there is one."""
    from petal.checkpoints import PetalSaver, database_status, open_checkpointer

    config = configured(url, "URL", schema=schema, encryption_key_env=key_variable)
    known = database_status(config)
    if known.state == "langgraph":
        raise CheckpointerConfigurationError(
            f"{known.where} cannot be verified: LangGraph's tables have no checksums. `petal convert` copies it into "
            "Petal's."
        )
    if known.state != "current":
        raise CheckpointerConfigurationError(f"{known.where} cannot be verified. {_advice(known)}")
    if known.encrypted and config.options.encryption_key_env is None:
        raise CheckpointerConfigurationError(
            f"{known.where} cannot be verified without its keys: --key-env names the variable that holds them."
        )
    damaged = threads = 0
    told: list[dict[str, str]] = []
    with quiet_about_types(), open_checkpointer(config, engine="petal", inspect=True) as saver:
        assert isinstance(saver, PetalSaver)
        for thread_id in _threads(saver, thread):
            threads += 1
            for damage in saver.verify(thread_id):
                damaged += 1
                if as_json:
                    told.append({"thread_id": damage.thread_id, "where": damage.where, "problem": damage.problem})
                else:
                    print(printable(f"{damage.where}: {damage.problem}"), flush=True)
    what = "1 thread" if threads == 1 else f"{threads} threads"
    if as_json:
        print_json({"threads": threads, "damages": told})
    elif damaged:
        print(f"{damaged} damaged in {what}.")
    else:
        print(f"All rows of {what} are whole.")
    if damaged:
        raise typer.Exit(ExitCode.FAILED)


@app.command("upgrade")
def upgrade(url: Url, schema: Schema = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Bring Petal's tables to this version's format, as the next run would."""
    from petal.checkpoints import upgrade_database

    before, after = upgrade_database(configured(url, "URL", schema=schema))
    if as_json:
        print_json({"before": before, "format": after})
    elif before == after:
        print(f"It has this version's format, {after}, already.")
    else:
        print(f"Upgraded from format {before} to {after}.")


def _threads(saver: PetalSaver, thread: str | None) -> Iterator[str]:
    if thread is not None:
        yield whole_thread(saver, thread)
        return
    for info in all_threads(saver):
        yield info.thread_id


def _advice(status: DatabaseStatus) -> str:
    format = "" if status.format is None else f"Its format is {status.format}, this Petal's {status.known_format}. "
    return f"{format}{ADVICE[status.state]}"


def _fields(status: DatabaseStatus) -> dict[str, str]:
    fields = {"Database": status.where}
    if status.engine is not None:
        fields["Tables"] = {"petal": "Petal's", "langgraph": "LangGraph's"}[status.engine]
    if status.format is not None:
        fields["Format"] = f"{status.format} ({status.state}; this Petal's is {status.known_format})"
    if status.threads is not None:
        fields["Threads"] = f"{status.threads:,}"
        fields["Checkpoints"] = f"{status.checkpoints:,}"
    if status.bytes is not None:
        fields["Kept"] = f"{status.bytes:,} bytes"
    if status.encrypted is not None:
        fields["Encrypted"] = "yes" if status.encrypted else "no"
    if status.size is not None:
        fields["On disk"] = f"{status.size:,} bytes"
    if ADVICE[status.state]:
        fields["To do"] = ADVICE[status.state]
    return fields


def _as_json(status: DatabaseStatus) -> dict[str, Any]:
    return {
        "database": status.where,
        "state": status.state,
        "engine": status.engine,
        "format": status.format,
        "known_format": status.known_format,
        "threads": status.threads,
        "checkpoints": status.checkpoints,
        "bytes": status.bytes,
        "encrypted": status.encrypted,
        "size": status.size,
        "to_do": ADVICE[status.state] or None,
    }
