"""`petal check`: can the threads of a database go on with the agent as it is today."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petal.cli.databases import named, outlives_the_process, quiet_about_types, recognised, require_existing
from petal.cli.failures import ExitCode, explained
from petal.cli.options import AgentFile, AsJson, Database, Debug
from petal.cli.rendering import printable

if TYPE_CHECKING:
    from petal.core.agent import Agent
    from petal.core.config.checkpointer import CheckpointerConfig
    from petal.core.continuity import ThreadCheck
    from petal.core.factory import AgentFactory


def check(agent: AgentFile, db: Database = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Read the newest state of each thread with the agent's types, migrations and steps of today.

    Each thread that could not go on is told, and why. Nothing is run or written.
    """
    from petal.core.factory import AgentFactory

    factory = AgentFactory.from_yaml(agent)
    config = kept_by(factory, agent, db)
    threads = failed = 0
    with quiet_about_types(), _reading(factory, config) as built:
        for checked in built.check():
            threads += 1
            failed += checked.error is not None
            if as_json:
                print(json.dumps(_as_json(checked)), flush=True)
            elif checked.error is not None:
                print(printable(f"{checked.thread_id}: {explained(checked.error)}"), flush=True)
    if not as_json:
        what = "1 thread" if threads == 1 else f"{threads:,} threads"
        print(f"{failed:,} of {what} cannot go on." if failed else f"{what} checked; all can go on.")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def kept_by(factory: AgentFactory, agent: Path, db: str | None) -> CheckpointerConfig:
    """The database of `--db`, else of the agent, which must be there.

    Raises:
        CheckpointerUnavailableError: If the database does not exist.
        CheckpointerConfigurationError: If its URL is none of ours.
    """
    from petal.core.config.checkpointer import CheckpointerConfig

    config = factory.config.checkpointer if db is None else named(db)
    if not isinstance(config, CheckpointerConfig) or not outlives_the_process(config):
        problem = f"{agent} names no database that outlives a run" if db is None else "memory keeps no threads"
        raise typer.BadParameter(f"{problem}; name a file or a postgresql:// URL.", param_hint="--db")
    require_existing(config)
    return recognised(config)


@contextmanager
def _reading(factory: AgentFactory, config: CheckpointerConfig) -> Iterator[Agent]:
    """The agent on a saver that changes nothing."""
    from petal.checkpoints import open_checkpointer
    from petal.core.builders.director import declared_types

    with open_checkpointer(config, allow=declared_types(factory.config), read_only=True) as saver:
        agent = factory.with_checkpointer(saver).build()
        with closing(agent):
            yield agent


def _as_json(checked: ThreadCheck) -> dict[str, Any]:
    error = checked.error
    return {
        "thread_id": checked.thread_id,
        "checkpoint_id": checked.checkpoint_id,
        "problem": None if error is None else explained(error),
        "error": None if error is None else type(error).__name__,
    }
