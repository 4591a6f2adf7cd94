"""Which database is meant, and whether it is there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from petal.cli.options import DB_VARIABLE
from petal.errors import CheckpointerConfigurationError, CheckpointerUnavailableError

if TYPE_CHECKING:
    from petal.checkpoints.langgraph.adapter import LangGraphSaver
    from petal.checkpoints.saver import PetalSaver
    from petal.core.config.checkpointer import CheckpointerConfig


def named(database: str) -> CheckpointerConfig:
    """The database that `--db` names: a URL, or the path of an SQLite file.

    Raises:
        CheckpointerConfigurationError: If it is a URL that is none of ours.
    """
    from petal.core.config.checkpointer import CheckpointerConfig

    if "://" in database:
        return CheckpointerConfig.from_url(database)
    return CheckpointerConfig(type="sqlite", config={"db_file": database})


def with_options(config: CheckpointerConfig, **options: str | None) -> CheckpointerConfig:
    """The same database with further options; None leaves one as it is.

    Raises:
        CheckpointerConfigurationError: If an option does not fit the database.
    """
    from petal.core.config.checkpointer import CheckpointerConfig

    given = {name: value for name, value in options.items() if value is not None}
    return CheckpointerConfig(type=config.type, config={**(config.config or {}), **given}, enabled=config.enabled)


def configured(database: str, argument: str, **options: str | None) -> CheckpointerConfig:
    """The database that an argument names, with options.

    Raises:
        CheckpointerConfigurationError: If its URL is none of ours, or an option does not fit it.
    """
    config = named(database)
    if not outlives_the_process(config):
        raise typer.BadParameter("memory keeps no threads; name a file or a postgresql:// URL.", param_hint=argument)
    return with_options(config, **options)


def recognised(config: CheckpointerConfig) -> CheckpointerConfig:
    """The same database with the engine whose tables it holds, if none is named.

    Of an SQLite file the checkpointer itself finds that out; a server it asks only when it is used.
    """
    if config.type != "postgres" or "engine" in (config.config or {}):
        return config
    from petal.checkpoints import database_status

    return with_options(config, engine=database_status(config).engine)


@contextmanager
def quiet_about_types() -> Iterator[None]:
    """LangGraph's serializer warns of each type that it does not make; that is told in other words, or is meant."""
    from langgraph.checkpoint.serde import jsonplus

    before = jsonplus.logger.level
    jsonplus.logger.setLevel(logging.ERROR)
    yield
    jsonplus.logger.setLevel(before)


def repeated(database: str | None, agent: Path | None = None) -> list[str]:
    """The option that names the database again in a command shown to the user; a password is left out.

    Args:
        database: As it was named itself.
        agent: The agent whose database it is, if none was named; None also where the command names it anyway.
    """
    from petal.core.config.checkpointer import redacted

    if database is None:
        return [] if agent is None else ["--agent", str(agent)]
    if database == os.environ.get(DB_VARIABLE):
        return []
    return ["--db", redacted(database)]


def outlives_the_process(config: object) -> bool:
    """Whether what is kept there is still there for the next command."""
    from petal.core.config.checkpointer import MEMORY_FILE, CheckpointerConfig

    if not isinstance(config, CheckpointerConfig) or not config.enabled:
        return False
    return config.type != "memory" and (config.config or {}).get("db_file") != MEMORY_FILE


def require_existing(config: CheckpointerConfig) -> None:
    """Raise CheckpointerUnavailableError where opening an SQLite file would make it."""
    if config.type == "sqlite" and not Path((config.config or {})["db_file"]).exists():
        raise CheckpointerUnavailableError(
            config.where,
            "there is no such file",
            f"A run makes it; name another with --db or {DB_VARIABLE} if it lies elsewhere",
        )


@contextmanager
def opened(database: str | None, agent: Path | None, *, inspect: bool = True) -> Iterator[PetalSaver | LangGraphSaver]:
    """The saver of an existing database: that of `--db` or PETAL_DB, else of the agent.

    Without `inspect` it may be changed too.

    Values of the user's own types come back as the plain data they were saved as: nothing is imported because a
    database names it.

    Raises:
        CheckpointerUnavailableError: If the database does not exist or cannot be reached.
        YAMLConfigurationError: If the agent's file holds a mistake.
    """
    config = chosen(database, agent)
    require_existing(config)
    from petal.checkpoints import open_checkpointer

    with quiet_about_types(), open_checkpointer(recognised(config), inspect=inspect) as saver:
        yield saver


def require_petals(saver: PetalSaver | LangGraphSaver, what: str) -> PetalSaver:
    """The saver, if the tables are Petal's.

    Args:
        saver: The saver.
        what: Of LangGraph's tables, what is not done with them.

    Raises:
        CheckpointerConfigurationError: If they are LangGraph's.
    """
    from petal.checkpoints import PetalSaver

    if not isinstance(saver, PetalSaver):
        raise CheckpointerConfigurationError(
            f"{saver.where} holds LangGraph's tables, {what}; `petal convert` copies it into Petal's."
        )
    return saver


def chosen(database: str | None, agent: Path | None) -> CheckpointerConfig:
    """The database of `--db` or PETAL_DB, else of the agent.

    Raises:
        CheckpointerConfigurationError: If its URL is none of ours.
        YAMLConfigurationError: If the agent's file holds a mistake.
    """
    if database is not None:
        config = named(database)
        if not outlives_the_process(config):
            raise typer.BadParameter("memory keeps no threads; name a file or a postgresql:// URL.", param_hint="--db")
        return config
    if agent is None:
        raise typer.BadParameter(
            f"which database? Name it with --db URL or in {DB_VARIABLE}, or name the agent with --agent AGENT.yaml.",
            param_hint="--db",
        )
    from petal.core.config.checkpointer import CheckpointerConfig
    from petal.core.yaml.loader import load_agent

    kept = load_agent(agent).checkpointer
    if not isinstance(kept, CheckpointerConfig) or not outlives_the_process(kept):
        raise typer.BadParameter(f"{agent} names no database; name one with --db URL.", param_hint="--agent")
    return kept
