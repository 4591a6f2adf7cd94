"""Forks and rewinds: what they are made of, for an agent or for the database alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from petal.checkpoints.branches import acarry, aname, anext_name
from petal.checkpoints.lines import atree
from petal.checkpoints.rewinding import arewind
from petal.checkpoints.saver import PetalSaver
from petal.core.effects.dry import anote_origin
from petal.core.questions import has_failed
from petal.errors import CheckpointerError, CheckpointNotFoundError, TooFewTurnsError


@dataclass(frozen=True, slots=True)
class Left:
    """What a rewind left behind.

    Attributes:
        checkpoint_id: The old head.
        name: The name under which it is kept.
    """

    checkpoint_id: str
    name: str


async def forked(saver: BaseCheckpointSaver[Any], source: str, checkpoint_id: str, target: str) -> None:
    """Make a thread that begins as another one was at a checkpoint.

    Args:
        saver: Keeps both.
        source: The thread to fork.
        checkpoint_id: A checkpoint of its root namespace.
        target: The thread to make.

    Raises:
        CheckpointNotFoundError: If there is no such checkpoint.
        CheckpointerError: If the new thread exists already, or the saver cannot fork.
    """
    failed = isinstance(saver, PetalSaver) and await has_failed(saver, source, checkpoint_id)
    await acted(saver, "afork_thread", source, checkpoint_id, target, **({"failed": True} if failed else {}))
    await acarry(saver, source, target, checkpoint_id)
    await anote_origin(saver, source, target, checkpoint_id)


async def rewound(
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig,
    turns: int = 1,
    to: str | None = None,
    keep_as: str | None = None,
) -> Left:
    """Make an earlier checkpoint the newest one, once the old head has a name. No value is read or written.

    Args:
        saver: The saver of the thread.
        config: Names the thread, and the run that has it.
        turns: How many inputs to take back.
        to: The checkpoint to go back to, instead of counting turns.
        keep_as: The name of the old head; default: `before-rewind-1`, and so on.

    Raises:
        CheckpointNotFoundError: If there is no such checkpoint.
        TooFewTurnsError: If there is nothing before that many turns.
        BranchNameError: If `keep_as` can be no name.
        BranchExistsError: If another checkpoint has that name.
    """
    thread_id = str(config["configurable"]["thread_id"])
    tree = await atree(saver, thread_id)
    if to is None:
        places = tree.before_inputs()
        if turns > len(places):
            raise TooFewTurnsError(thread_id, turns, len(places))
        to = places[turns - 1]
    if to not in tree.known:
        raise CheckpointNotFoundError(thread_id, to)
    left = Left(tree.head, keep_as if keep_as is not None else await anext_name(saver, thread_id))
    await aname(saver, config, left.name, left.checkpoint_id, "rewind", given=keep_as is not None)
    await arewind(saver, config, to)
    return left


async def acted(saver: BaseCheckpointSaver[Any], act: str, *args: Any, **kwargs: Any) -> Any:
    """What one of a saver's acts on whole threads gives, which not every saver of LangGraph's has.

    Raises:
        CheckpointerError: If this one has not.
    """
    try:
        method = getattr(saver, act)
        return await method(*args, **kwargs)
    except (AttributeError, NotImplementedError) as error:
        raise CheckpointerError(
            f"{type(saver).__name__} has no {act}; open the database with petal.checkpoints.open_checkpointer, "
            "whose savers have it."
        ) from error
