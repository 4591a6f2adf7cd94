"""The shape of an agent's state: its version, and how kept values of an earlier one come to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

from langgraph.checkpoint.base import CheckpointTuple

from petal.checkpoints.leniency import raw_in
from petal.core.config.agent import AgentConfig
from petal.errors import MigrationError, StateVersionError

AGENT = "petal_agent"
"""In the metadata of an agent's checkpoints: its `name` and `version`. A mapping is not in the index of what can be
searched for, where it would take room."""

_OTHERS = ("branch:to:", "join:", "__")
"""How the names of channels begin that are no part of the state."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Which state an agent writes, and which it can read.

    Attributes:
        agent: The agent's name.
        version: The version that it writes.
        migrations: By the version that they start from: the one they lead to, and the function.
    """

    agent: str
    version: int
    migrations: Mapping[int, tuple[int, Callable[[dict[str, Any]], Any]]]

    @classmethod
    def of(cls, config: AgentConfig) -> Self:
        """The shape of an agent's state."""
        steps = {migration.start: (migration.to, migration.function) for migration in config.migrations}
        return cls(config.name, config.version, steps)

    def is_older(self, kept: CheckpointTuple) -> bool:
        """Whether a checkpoint needs migrations.

        Raises:
            StateVersionError: If it is of a later version than the agent.
        """
        found = version_of(kept)
        if found > self.version:
            raise StateVersionError(*_place(kept), found, self.version)
        return found < self.version

    def migrated(self, values: dict[str, Any], start: int, kept: CheckpointTuple) -> dict[str, Any]:
        """Values of one version as those of this one.

        Args:
            values: The values; a function may change them in place.
            start: Their version.
            kept: The checkpoint that they are of, for the error.

        Raises:
            MigrationError: If a function fails, returns no values, or leaves some that cannot be made again.
        """
        while start < self.version:
            if start not in self.migrations:
                raise MigrationError(*_place(kept), start, self.version, "no migration leads on from there; add one.")
            end, function = self.migrations[start]
            try:
                values = function(values)
            except Exception as error:
                raise MigrationError(*_place(kept), start, end, f"{type(error).__name__}: {error}") from error
            if not isinstance(values, dict):
                problem = f"the migration returned a {type(values).__name__}, not the dict of the values."
                raise MigrationError(*_place(kept), start, end, problem)
            start = end
        for name, value in values.items():
            if (raw := raw_in(value)) is not None:
                problem = (
                    f"{name!r} still holds what was saved of a {raw.type_name}, a type that is gone or has changed; "
                    "make the value anew in a migration, from its .data."
                )
                raise MigrationError(*_place(kept), version_of(kept), self.version, problem)
        return values

    def check_begun(self, kept: CheckpointTuple, written: Mapping[str, int], *, input_only: bool = False) -> None:
        """See that what was written for the next checkpoint, before its run was cut off, is not concerned.

        Such writes are what finished tasks of an unfinished step left, and input that no step has seen. They are parts
        of a state, which migrations are not made for.

        Args:
            kept: The checkpoint as it was saved; it may be changed.
            written: By task, the version that wrote what it left, where that is not the checkpoint's.
            input_only: What tasks left does not count, since they would run again.

        Raises:
            MigrationError: If migrations would change one of these values.
        """
        found = version_of(kept)
        values = state_of(kept)
        for task, writes in _begun(kept):
            if task and input_only:
                continue
            start = written.get(task, found)
            if start == self.version:
                continue
            before = {**values, **writes}
            after = self.migrated(deepcopy(before), start, kept)
            for name in writes:
                if name not in after or not _equal(before[name], after[name]):
                    problem = (
                        f"its run was cut off within a step, and what was left for {name!r} is of version {start}. "
                        f"Let version {start} of the agent go on with it, or send new input, which drops it."
                    )
                    raise MigrationError(*_place(kept), start, self.version, problem)


def version_of(kept: CheckpointTuple) -> int:
    """The version of the agent that wrote a checkpoint; 1 if it does not say."""
    return int(_told(kept).get("version", 1))


def agent_of(kept: CheckpointTuple) -> str | None:
    """The name of the agent that wrote a checkpoint, if it says."""
    return _told(kept).get("name")


def state_of(kept: CheckpointTuple) -> dict[str, Any]:
    """The values of the state in a checkpoint, without what LangGraph keeps beside them."""
    return {name: value for name, value in kept.checkpoint["channel_values"].items() if is_state(name)}


def is_state(channel: str) -> bool:
    """Whether a channel is part of the state."""
    return not channel.startswith(_OTHERS)


def _begun(kept: CheckpointTuple) -> Iterator[tuple[str, dict[str, Any]]]:
    """By task, what is left for the state."""
    entered = kept.checkpoint["channel_values"].get("__start__")
    if isinstance(entered, Mapping):
        yield "", dict(entered)
    tasks: dict[str, dict[str, Any]] = {}
    for task, channel, value in kept.pending_writes or ():
        if is_state(channel):
            tasks.setdefault(task, {})[channel] = value
    yield from tasks.items()


def _told(kept: CheckpointTuple) -> Mapping[str, Any]:
    told = (kept.metadata or {}).get(AGENT)
    return told if isinstance(told, Mapping) else {}


def _place(kept: CheckpointTuple) -> tuple[str, str]:
    place = kept.config["configurable"]
    return str(place["thread_id"]), str(place["checkpoint_id"])


def _equal(one: Any, other: Any) -> bool:
    try:
        return type(one) is type(other) and bool(one == other)
    except ValueError:  # arrays say for each of their elements whether it is equal
        return repr(one) == repr(other)
