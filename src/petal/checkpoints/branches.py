"""Names of branches: each is a note on the checkpoint that it names, so it goes wherever that goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.base.id import uuid6

from petal.checkpoints import clock
from petal.checkpoints.notes import BRANCH, Note, anotes, anotes_at, aput_note
from petal.errors import BranchExistsError, BranchNameError, BranchNotFoundError, CheckpointNotFoundError

Why = Literal["named", "rewind"]
"""What gave a branch its name: somebody, or a rewind."""

LONGEST = 100
"""Characters of a name at most."""
BEFORE_REWIND = "before-rewind-"
"""How the names begin that a rewind gives by itself; a number follows."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A name of a checkpoint.

    Attributes:
        name: The name.
        checkpoint_id: The checkpoint, which is the branch's head.
        created: When it got its name, in UTC.
        why: `"named"`, or `"rewind"` for the old head of a rewind.
        is_head: Whether it is the thread's newest checkpoint.
        parted: Where it left the way to the thread's newest checkpoint; None if it has no checkpoint in common.
        steps: Supersteps since then; 0 if it lies on that way.
        turns: Inputs since then.
    """

    name: str
    checkpoint_id: str
    created: datetime
    why: Why
    is_head: bool
    parted: str | None
    steps: int
    turns: int


def names_in(noted: Iterable[Note]) -> dict[str, Note]:
    """The names that still hold, each with the note that gave it, in the order in which they were given."""
    found: dict[str, Note] = {}
    for note in sorted(noted, key=lambda note: note.key):
        found.pop(note.value["name"], None)
        if not note.value["dropped"]:
            found[note.value["name"]] = note
    return found


def by_checkpoint(names: Mapping[str, Note]) -> dict[str, list[str]]:
    """The names that each checkpoint has, in their order."""
    found: dict[str, list[str]] = {}
    for name, note in names.items():
        found.setdefault(note.checkpoint_id, []).append(name)
    return found


async def anames(saver: BaseCheckpointSaver[Any], thread_id: str) -> dict[str, Note]:
    """The names in a thread, as `names_in` gives them."""
    noted = await anotes(saver, thread_id, BRANCH, ns="")
    if noted:
        clock.follow(max(note.key for note in noted))  # of what is said of a name the last counts
    return names_in(noted)


async def acheckpoint_of(saver: BaseCheckpointSaver[Any], thread_id: str, place: str) -> str:
    """The checkpoint that a name or an id means. Ids that are UUIDs, as LangGraph's are, are taken as they are.

    Raises:
        BranchNotFoundError: If it is neither; it lists the names.
        TypeError: If it is no text.
    """
    if not isinstance(place, str):
        raise TypeError(
            f"A checkpoint is named by its id or a branch's name, not by {type(place).__name__}; the id of a state is "
            "state.config['configurable']['checkpoint_id']."
        )
    if _is_id(place):
        return place
    names = await anames(saver, thread_id)
    if (note := names.get(place)) is not None:
        return note.checkpoint_id
    if place and await anotes_at(saver, _config(thread_id, place), BRANCH) is not None:
        return place
    raise BranchNotFoundError(thread_id, place, tuple(names))


def is_given(note: Note) -> bool:
    """Whether somebody gave a name, rather than a rewind by itself."""
    return bool(note.value.get("given", True))


async def aname(
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig,
    name: str,
    checkpoint_id: str,
    why: Why = "named",
    *,
    given: bool = True,
) -> None:
    """Give a checkpoint a name; the same name again for it changes nothing, unless only now somebody gives it.

    Args:
        saver: The saver of the thread.
        config: Names the thread; what else a run's `configurable` holds may be in it.
        name: The name.
        checkpoint_id: A checkpoint of the root namespace.
        why: What gives it.
        given: Whether somebody chose it, so that it also holds an idle thread.

    Raises:
        BranchNameError: If it can be no name.
        BranchExistsError: If another checkpoint has it.
        CheckpointNotFoundError: If there is no such checkpoint.
    """
    thread_id = str(config["configurable"]["thread_id"])
    if (problem := _problem(name)) is not None:
        raise BranchNameError(name, problem)
    known = (await anames(saver, thread_id)).get(name)
    if known is not None and known.checkpoint_id != checkpoint_id:
        raise BranchExistsError(thread_id, name, known.checkpoint_id)
    if known is not None and (is_given(known) or not given):
        return
    if await anotes_at(saver, _config(thread_id, checkpoint_id), BRANCH) is None:
        raise CheckpointNotFoundError(thread_id, checkpoint_id)
    await _note(saver, config, checkpoint_id, name, why, given=given)


async def adrop(saver: BaseCheckpointSaver[Any], thread_id: str, name: str) -> None:
    """Take a name away; its checkpoints stay until a prune takes them.

    Raises:
        BranchNotFoundError: If there is no such name.
    """
    names = await anames(saver, thread_id)
    if (note := names.get(name)) is None:
        raise BranchNotFoundError(thread_id, name, tuple(names))
    why, given = note.value["why"], is_given(note)
    await _note(saver, _config(thread_id), note.checkpoint_id, name, why, given=given, dropped=True)


async def anext_name(saver: BaseCheckpointSaver[Any], thread_id: str) -> str:
    """The name that a rewind gives next: one more than any number that was given, dropped ones too."""
    given = [note.value["name"] for note in await anotes(saver, thread_id, BRANCH, ns="")]
    numbers = [name.removeprefix(BEFORE_REWIND) for name in given if name.startswith(BEFORE_REWIND)]
    return f"{BEFORE_REWIND}{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}"


async def acarry(saver: BaseCheckpointSaver[Any], source: str, target: str, checkpoint_id: str) -> None:
    """Give a fork's newest checkpoint the names that its source has there."""
    there = await anames(saver, target)
    for name, note in (await anames(saver, source)).items():
        if note.checkpoint_id == checkpoint_id and name not in there:
            await _note(saver, _config(target), checkpoint_id, name, note.value["why"], given=is_given(note))


def _config(thread_id: str, checkpoint_id: str | None = None) -> RunnableConfig:
    named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **named}}


async def _note(
    saver: BaseCheckpointSaver[Any],
    config: RunnableConfig,
    checkpoint_id: str,
    name: str,
    why: Why,
    *,
    given: bool,
    dropped: bool = False,
) -> None:
    time = datetime.now(UTC).isoformat()
    value = {"name": name, "time": time, "why": why, "given": given, "dropped": dropped}
    there = {**config["configurable"], "checkpoint_ns": "", "checkpoint_id": checkpoint_id}
    await aput_note(saver, {"configurable": there}, BRANCH, value, str(uuid6()))


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _problem(name: str) -> str | None:
    """Why it can be no name."""
    if not isinstance(name, str):
        return "it is no text"
    if not name.strip():
        return "it is empty"
    if name != name.strip() or not name.isprintable():
        return "it has spaces at an end, or characters that cannot be seen"
    if len(name) > LONGEST:
        return f"it has more than {LONGEST} characters"
    return "it looks like the id of a checkpoint" if _is_id(name) else None
