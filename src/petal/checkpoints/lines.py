"""The lines of a thread: which checkpoints follow on which, and where lines part, without a value being read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from petal.checkpoints.branches import Branch, anames, by_checkpoint, names_in
from petal.checkpoints.notes import BRANCH, Note, notes_of
from petal.checkpoints.threads import TWIN_OF, CheckpointInfo
from petal.errors import CheckpointNotFoundError

_PAGE = 500


@runtime_checkable
class Outlining(Protocol):
    """A saver that lists checkpoints without reading their values."""

    async def acheckpoints(
        self, thread_id: str, limit: int = 50, before: CheckpointInfo | None = None, *, ns: str | None = ""
    ) -> list[CheckpointInfo]:
        """A page, newest first."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a thread: a checkpoint that nothing follows, and what led to it.

    Attributes:
        checkpoint_id: Its head.
        names: The names of its head.
        is_head: Whether it is the line of the thread's newest checkpoint, which runs go on from.
        parted: The last checkpoint that it has in common with a line before it in the list; None for the first line.
            Of a rewind that is the checkpoint which it repeats.
        checkpoints: Ids of the checkpoints that are on no line before it, newest first.
    """

    checkpoint_id: str
    names: tuple[str, ...]
    is_head: bool
    parted: str | None
    checkpoints: tuple[str, ...]


class Passed:
    """Checkpoints of ways that were walked, and those that these repeat."""

    def __init__(self, *infos: CheckpointInfo) -> None:
        self.ids: set[str] = set()
        self.repeated: set[str] = set()
        self.add(infos)

    def add(self, infos: Iterable[CheckpointInfo]) -> None:
        """Take in a way, or a part of one."""
        for info in infos:
            self.ids.add(info.checkpoint_id)
            if (repeated := info.metadata.get(TWIN_OF)) is not None:
                self.repeated.add(str(repeated))


class Tree:
    """How the checkpoints of a thread's root namespace follow on each other.

    Args:
        outlines: All of them, in any order.
    """

    def __init__(self, outlines: Sequence[CheckpointInfo]) -> None:
        self.known = {info.checkpoint_id: info for info in outlines}

    @property
    def head(self) -> str:
        """The newest checkpoint."""
        return max(self.known)

    def path(self, checkpoint_id: str) -> Iterator[CheckpointInfo]:
        """A checkpoint and those that led to it, newest first; a loop of parents ends it."""
        passed: set[str] = set()
        at = self.known.get(checkpoint_id)
        while at is not None and at.checkpoint_id not in passed:
            passed.add(at.checkpoint_id)
            yield at
            at = None if at.parent_id is None else self.known.get(at.parent_id)

    def before_inputs(self) -> list[str]:
        """The checkpoints on which the inputs of the newest line came in, newest first, as far as they are there.

        A run under `"exit"` leaves no checkpoint of its input alone: there its first one is the first that comes of it.
        """
        began = [info.parent_id for info in self.path(self.head) if self.begins_turn(info)]
        return [id for id in began if id is not None and id in self.known]

    def begins_turn(self, info: CheckpointInfo) -> bool:
        """Whether it is the first checkpoint that comes of its input, as far as what was before it is there."""
        before = None if info.parent_id is None else self.known.get(info.parent_id)
        return info.input_id is not None and (before is None or before.input_id != info.input_id)

    def apart(self, checkpoint_id: str, passed: Passed) -> tuple[list[CheckpointInfo], str | None]:
        """What of the way to a checkpoint is on none of the ways that were passed, newest first, and where it parts.

        Where that is a checkpoint that a rewind repeated, it is its way's last one, since the other has the repetition.
        """
        own: list[CheckpointInfo] = []
        for info in self.path(checkpoint_id):
            if info.checkpoint_id not in passed.ids:
                own.append(info)
            if info.checkpoint_id in passed.ids or info.checkpoint_id in passed.repeated:
                return own, info.checkpoint_id
        return own, None

    def leaves(self) -> list[str]:
        """The checkpoints that nothing follows, newest first."""
        followed = {info.parent_id for info in self.known.values()}
        return sorted((id for id in self.known if id not in followed), reverse=True)


async def aoutlines(saver: BaseCheckpointSaver[Any], thread_id: str, *, ns: str | None = "") -> list[CheckpointInfo]:
    """All checkpoints of a thread, newest first; those of a saver that cannot list them are read whole.

    Args:
        saver: The saver.
        thread_id: The thread.
        ns: The namespace; None for all.
    """
    found: list[CheckpointInfo] = []
    if isinstance(saver, Outlining):
        while True:
            page = await saver.acheckpoints(thread_id, _PAGE, found[-1] if found else None, ns=ns)
            found += page
            if len(page) < _PAGE:
                return found
    place = {} if ns is None else {"checkpoint_ns": ns}
    async for kept in saver.alist({"configurable": {"thread_id": thread_id, **place}}):
        found.append(_outline(thread_id, kept))
    return found


async def atree(saver: BaseCheckpointSaver[Any], thread_id: str) -> Tree:
    """How the checkpoints of a thread follow on each other.

    Raises:
        CheckpointNotFoundError: If there is no such thread.
    """
    outlines = await aoutlines(saver, thread_id)
    if not outlines:
        raise CheckpointNotFoundError(thread_id)
    return Tree(outlines)


async def asurvey(saver: BaseCheckpointSaver[Any], thread_id: str) -> tuple[Tree, dict[str, Note]]:
    """How the checkpoints of a thread follow on each other, and the names that they have; each is read once at most.

    Raises:
        CheckpointNotFoundError: If there is no such thread.
    """
    if isinstance(saver, Outlining):
        return await atree(saver, thread_id), await anames(saver, thread_id)
    outlines: list[CheckpointInfo] = []
    noted: list[Note] = []
    async for kept in saver.alist({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}):
        outlines.append(_outline(thread_id, kept))
        noted += notes_of(kept, BRANCH)
    if not outlines:
        raise CheckpointNotFoundError(thread_id)
    return Tree(outlines), names_in(noted)


async def abranches(saver: BaseCheckpointSaver[Any], thread_id: str) -> list[Branch]:
    """The named branches of a thread, in the order in which they got their names.

    Raises:
        CheckpointNotFoundError: If there is no such thread.
    """
    tree, names = await asurvey(saver, thread_id)
    passed = Passed(*tree.path(tree.head))
    found = []
    for name, note in names.items():
        own, parted = tree.apart(note.checkpoint_id, passed)
        since = [info for info in own if info.checkpoint_id != parted]
        found.append(
            Branch(
                name,
                note.checkpoint_id,
                datetime.fromisoformat(note.value["time"]),
                note.value["why"],
                note.checkpoint_id == tree.head,
                parted,
                [info.metadata.get("source") for info in since].count("loop"),
                sum(map(tree.begins_turn, since)),
            )
        )
    return found


async def alines(saver: BaseCheckpointSaver[Any], thread_id: str) -> list[Line]:
    """The lines of a thread: that of its newest checkpoint first, then those of other heads, newest first.

    Raises:
        CheckpointNotFoundError: If there is no such thread.
    """
    return lines_of(*await asurvey(saver, thread_id))


def lines_of(tree: Tree, names: Mapping[str, Note]) -> list[Line]:
    """As `alines`, of a thread that was surveyed."""
    there = by_checkpoint(names)
    lines: list[Line] = []
    passed = Passed()
    for head in dict.fromkeys((tree.head, *tree.leaves())):
        own, parted = tree.apart(head, passed)
        ids = tuple(info.checkpoint_id for info in own)
        lines.append(Line(head, tuple(there.get(head, ())), head == tree.head, parted, ids))
        passed.add(own)
    return lines


def _outline(thread_id: str, kept: CheckpointTuple) -> CheckpointInfo:
    at, parent = kept.config["configurable"], (kept.parent_config or {}).get("configurable", {})
    return CheckpointInfo(
        thread_id,
        at.get("checkpoint_ns", ""),
        kept.checkpoint["id"],
        parent.get("checkpoint_id"),
        kept.checkpoint["ts"],
        kept.metadata,
        tuple(kept.checkpoint["channel_values"]),
    )
