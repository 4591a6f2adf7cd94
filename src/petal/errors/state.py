"""Errors of what keeps state, and of the threads in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from petal.errors.base import PetalError, known_names


class CheckpointerError(PetalError):
    """State cannot be kept or read."""

    @staticmethod
    def no_text(where: str, error: UnicodeEncodeError) -> CheckpointerError:
        """The error of an id or a name that holds half a character."""
        return CheckpointerError(f"{where}: {error.object!r} is no text that can be kept ({error.reason}).")


class CheckpointerConfigurationError(CheckpointerError, ValueError):
    """A checkpointer's configuration is invalid."""


class CheckpointerUnavailableError(CheckpointerError, ConnectionError):
    """The database cannot be used: unreachable, locked, read-only, full, or it refuses the login.

    Attributes:
        where: The database, without any password.
        problem: The cause, in the database's own words.
        hint: What to do about it.
    """

    def __init__(self, where: str, problem: str, hint: str) -> None:
        super().__init__(where, problem, hint)
        self.where, self.problem, self.hint = where, problem, hint

    @classmethod
    def closed(cls, where: str) -> Self:
        """The error of using a checkpointer after it was closed."""
        return cls(where, "the checkpointer is closed", "Open it again with open_checkpointer(...), and close it last")

    @classmethod
    def forked(cls, where: str) -> Self:
        """The error of using a checkpointer that was opened before the process forked."""
        return cls(
            where,
            "the checkpointer was opened before this process forked from another one, which has it",
            "Use it first in the process that needs it, or open another one there",
        )

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. {self.hint}"


class CheckpointNotFoundError(CheckpointerError, LookupError):
    """No checkpoint matches what was asked for."""

    def __init__(self, thread_id: str, checkpoint_id: str | None = None) -> None:
        super().__init__(thread_id, checkpoint_id)
        self.thread_id, self.checkpoint_id = thread_id, checkpoint_id

    def __str__(self) -> str:
        what = "no checkpoints" if self.checkpoint_id is None else f"no checkpoint {self.checkpoint_id!r}"
        return f"Thread {self.thread_id!r} has {what}; `petal threads list` lists the threads there are."


class TooFewTurnsError(CheckpointNotFoundError):
    """A rewind is to take back more turns than the latest line of the thread has. Nothing was changed.

    Attributes:
        turns: How many were to be taken back.
        most: How many can be: before each of them there is a checkpoint to go back to.
    """

    def __init__(self, thread_id: str, turns: int, most: int) -> None:
        super().__init__(thread_id)
        self.args = (thread_id, turns, most)
        self.turns, self.most = turns, most

    def __str__(self) -> str:
        can = "1 turn" if self.most == 1 else f"{self.most} turns"
        return (
            f"Of thread {self.thread_id!r} {can} can be taken back, not {self.turns}; name the checkpoint or the "
            "branch to go back to, or begin a new thread."
        )


class BranchNotFoundError(CheckpointNotFoundError):
    """A thread has neither a branch of that name nor a checkpoint of that id.

    Attributes:
        known: The names that it has.
    """

    def __init__(self, thread_id: str, name: str, known: Sequence[str] = ()) -> None:
        super().__init__(thread_id, name)
        self.args = (thread_id, name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        none = "None of its checkpoints has a name; `petal threads history` lists them."
        return (
            f"Thread {self.thread_id!r} has no checkpoint {self.name!r}, and no branch of that name. "
            f"{known_names(self.name, self.known) if self.known else none}"
        )


class BranchNameError(CheckpointerError, ValueError):
    """A text can be no name of a branch. Nothing was changed."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"{self.name!r} can be no name of a branch: {self.problem}. Take a few letters, e.g. 'what-if'."


class BranchExistsError(CheckpointerError, ValueError):
    """Another checkpoint of the thread has that name. Nothing was changed.

    Attributes:
        checkpoint_id: The checkpoint that has it.
    """

    def __init__(self, thread_id: str, name: str, checkpoint_id: str) -> None:
        super().__init__(thread_id, name, checkpoint_id)
        self.thread_id, self.name, self.checkpoint_id = thread_id, name, checkpoint_id

    def __str__(self) -> str:
        return (
            f"Thread {self.thread_id!r} has a branch {self.name!r} already, at checkpoint {self.checkpoint_id!r}; take "
            "another name, or drop that one first."
        )


class CheckpointCorruptionError(CheckpointerError):
    """What lies in the database is damaged, or no database at all.

    Attributes:
        where: The database, or the row in it.
        problem: What is wrong with it.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where, self.problem = where, problem

    def __str__(self) -> str:
        return (
            f"{self.where} is damaged: {self.problem}. Nothing was changed; restore it from a copy, or name another "
            "database."
        )


class StateVersionError(CheckpointerError):
    """State was written by a version of the agent that this one cannot read. Nothing was changed.

    Attributes:
        thread_id: The thread.
        checkpoint_id: The checkpoint that holds the state.
        found: The version that wrote it.
        version: That of the agent.
    """

    def __init__(self, thread_id: str, checkpoint_id: str, found: int, version: int) -> None:
        super().__init__(thread_id, checkpoint_id, found, version)
        self.thread_id, self.checkpoint_id, self.found, self.version = thread_id, checkpoint_id, found, version

    def __str__(self) -> str:
        return (
            f"Checkpoint {self.checkpoint_id!r} of thread {self.thread_id!r} was written by version {self.found} of "
            f"the agent, and this is version {self.version}, which cannot read it; run it with version {self.found} "
            "or a newer one."
        )


class MigrationError(StateVersionError):
    """What brings older state to the agent's version cannot do it. Nothing was saved; the thread is as it was.

    Attributes:
        problem: Why, and what to do about it.
    """

    def __init__(self, thread_id: str, checkpoint_id: str, found: int, version: int, problem: str) -> None:
        super().__init__(thread_id, checkpoint_id, found, version)
        self.args = (thread_id, checkpoint_id, found, version, problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"Checkpoint {self.checkpoint_id!r} of thread {self.thread_id!r} cannot be brought from version "
            f"{self.found} of the agent to {self.version}: {self.problem}"
        )


class CheckpointConflictError(CheckpointerError):
    """Another run has the thread, or changed it while this one was under way. Of this one nothing more is saved.

    Attributes:
        thread_id: The thread.
        lost: Whether the run had the thread and lost it.
    """

    def __init__(self, thread_id: str, *, lost: bool = False) -> None:
        super().__init__(thread_id)
        self.thread_id, self.lost = thread_id, lost

    def __str__(self) -> str:
        if self.lost:
            return (
                f"This run no longer has thread {self.thread_id!r}: its process was not heard of for so long that "
                "another one took over, or it had ended. What it had saved before is kept; look at the thread's state "
                "before the input is sent again."
            )
        return f"Another run changed thread {self.thread_id!r} meanwhile; load its state and send the input again."


class ThreadBusyError(CheckpointConflictError):
    """Another run has the thread, and this one was not to wait, or not so long. Nothing was run or saved.

    Attributes:
        waited: Seconds that it waited; 0 if it was not to wait.
        own: Whether it was begun by a step of that other run.
    """

    def __init__(self, thread_id: str, waited: float = 0.0, *, own: bool = False) -> None:
        super().__init__(thread_id)
        self.waited, self.own = waited, own

    def __str__(self) -> str:
        if self.own:
            return (
                f"A step cannot run or change its own thread {self.thread_id!r}: the run it belongs to has it until "
                "its end. Return what is to change, or use a thread of another id."
            )
        since = f" after {self.waited:g} s" if self.waited else ""
        return (
            f"Another run still has thread {self.thread_id!r}{since}; nothing was run. Send the input again later, "
            "allow it to wait longer (conflict_timeout), or stop the other run with on_conflict='interrupt'."
        )


class RunStoppedError(CheckpointConflictError):
    """A later run asked for the thread with `on_conflict="interrupt"` or `"rollback"`, so this one stopped.

    Attributes:
        rolled_back: Whether what it had saved is removed.
    """

    def __init__(self, thread_id: str, *, rolled_back: bool = False) -> None:
        super().__init__(thread_id)
        self.rolled_back = rolled_back

    def __str__(self) -> str:
        kept = "what it had saved is removed" if self.rolled_back else "what it had saved is kept"
        return f"A later run took over thread {self.thread_id!r}, so this one stopped between two steps; {kept}."
