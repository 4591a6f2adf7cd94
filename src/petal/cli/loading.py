"""An agent from its file, with its state kept where the command line says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from petal.cli.databases import named, outlives_the_process

if TYPE_CHECKING:
    from petal.core.agent import Agent
    from petal.core.config.agent import AgentConfig


def load(file: Path, database: str | None, *, in_memory: bool = False) -> Agent:
    """The agent of a file; a database that is named takes the place of the agent's own.

    Args:
        file: The YAML file.
        database: What `--db` names.
        in_memory: Keep the state in memory where neither names a place.

    Raises:
        AgentConfigurationError: If the file holds a mistake.
        CheckpointerConfigurationError: If the database's URL does.
    """
    from petal.core.factory import AgentFactory

    factory = AgentFactory.from_yaml(file)
    if database is not None:
        factory.with_checkpointer(named(database))
    elif in_memory and not keeps_state(factory.config):
        factory.with_checkpointer(named("memory://"))
    return factory.build()


def keeps_state(config: AgentConfig) -> bool:
    """Whether the agent has a checkpointer that is on."""
    return getattr(config.checkpointer, "enabled", config.checkpointer is not None)


def keeps_threads(agent: Agent) -> bool:
    """Whether a later process can go on with the agent's threads."""
    return outlives_the_process(agent.config.checkpointer)


def answers_in_words(agent: Agent) -> bool:
    """Whether what the agent answers are messages; else it is its state."""
    return "messages" in agent.graph.channels
