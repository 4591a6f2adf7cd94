"""Every error Petal raises, in one tree.

```
PetalError
├── AgentConfigurationError (ValueError)     an agent's definition cannot work
│   ├── YAMLConfigurationError               … and it stands in a YAML file: file, line, key
│   └── PromptKeyError (LookupError)         a prompt names a key that the state does not have
├── ModelError                               a chat model cannot be had
│   ├── UnknownModelError (ValueError)       no provider of that name
│   ├── ModelPackageMissingError (ImportError)
│   └── ModelKeyMissingError                 the provider wants a key
├── ToolServerError (ConnectionError)        an MCP server does not give its tools
├── ThreadIdRequiredError (ValueError)       a checkpointer is on, and no thread was named
├── CheckpointerRequiredError                state was asked of an agent that keeps none
├── StepRejectedError                        a human said no to a step
├── StepGoneError (LookupError)              a run would go on at a step that the agent no longer has
├── EffectError                              what a step did cannot be recorded, or not be told from the record
│   ├── EffectMismatchError (ValueError)     it was recorded with other arguments
│   ├── UnknownEffectError                   it began and never ended
│   ├── EffectNotRecordedError (LookupError) a dry run comes to what was never done
│   └── EffectResultError (TypeError)        its result would not come back as it is
├── OutsideStepError (RuntimeError)          a key is asked for where no step runs
├── PendingInterruptError (ValueError)       new input came while a question was open
├── ResumeError                              an answer that fits no open question
│   ├── NothingToResumeError (LookupError)
│   │   └── UnknownThreadError               … since there is no such thread
│   ├── InterruptIdRequiredError (ValueError)
│   ├── UnknownInterruptError (LookupError)
│   │   └── ClosedInterruptError             … any more: it was answered, or given up
│   └── InvalidAnswerError (ValueError)
└── CheckpointerError                        state cannot be kept or read
    ├── CheckpointerConfigurationError (ValueError)
    ├── CheckpointerUnavailableError (ConnectionError)
    ├── CheckpointNotFoundError (LookupError)
    │   └── BranchNotFoundError              … nor a branch of that name
    ├── BranchNameError (ValueError)         what can be no name of a branch
    ├── BranchExistsError (ValueError)       another checkpoint has that name
    ├── CheckpointCorruptionError
    ├── StateVersionError                    state was written by a version of the agent that this one cannot read
    │   └── MigrationError                   … since what brings it to this version failed
    ├── CheckpointConflictError              another run has the thread, or changed it meanwhile
    │   ├── ThreadBusyError                  … and this one was not to wait, or not so long
    │   └── RunStoppedError                  … which stopped this one
    └── ValueNotSavableError (TypeError)     of petal.checkpoints.codec: a value would not come back as it is
```

Every error can be pickled and says what to do about it; none prints a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that `name` was most likely meant to be, if one is as like it as that (1.0: equal)."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return found[0] if found else None


def known_names(name: str, known: Sequence[str]) -> str:
    """What to say after an unknown name: the nearest known one, if one is close, and all of them."""
    guess = nearest(name, known)
    hint = f"Did you mean {guess!r}? " if guess else ""
    return f"{hint}Known: {', '.join(known) or 'none'}."


class PetalError(Exception):
    """Base of every error that Petal raises."""


class AgentConfigurationError(PetalError, ValueError):
    """An agent's definition cannot work as it stands."""


class YAMLConfigurationError(AgentConfigurationError):
    """A YAML file does not describe an agent, a step or a checkpointer.

    Attributes:
        file: The file, or None for text that came from no file.
        line: Line of the mistake, counted from 1.
        key: Dotted path of the key, e.g. `steps[0].config.provider`; empty for the whole document.
        problem: What was found, what is allowed, and the nearest known name.
        others: The document's further mistakes.
    """

    def __init__(
        self,
        file: Path | str | None,
        line: int | None,
        key: str,
        problem: str,
        others: tuple[YAMLConfigurationError, ...] = (),
    ) -> None:
        super().__init__(file, line, key, problem, others)
        self.file, self.line, self.key, self.problem, self.others = file, line, key, problem, others

    def __str__(self) -> str:
        return "\n".join([self._line(), *(str(other) for other in self.others)])

    def _line(self) -> str:
        where = str(self.file) if self.file is not None else "<text>"
        if self.line is not None:
            where += f":{self.line}"
        return f"{where}: {self.key}: {self.problem}" if self.key else f"{where}: {self.problem}"


class PromptKeyError(AgentConfigurationError, LookupError):
    """A prompt names a key that the state does not have."""

    def __init__(self, step: str, key: str, known: Sequence[str]) -> None:
        super().__init__(step, key, known)
        self.step, self.key, self.known = step, key, known

    def __str__(self) -> str:
        return (
            f"The prompt of step {self.step!r} names {{{self.key}}}, which the state does not have. "
            f"{known_names(self.key, self.known)} Write {{{{ and }}}} for literal braces."
        )


class ModelError(PetalError):
    """A chat model cannot be had."""


class UnknownModelError(ModelError, ValueError):
    """No provider of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        return (
            f"No model provider {self.name!r}; write a model as 'provider:model', e.g. 'openai:gpt-4o'. "
            f"{known_names(self.name, self.known)}"
        )


class ModelPackageMissingError(ModelError, ImportError):
    """The package of a model's provider is not installed."""

    def __init__(self, provider: str, package: str, install: str) -> None:
        super().__init__(provider, package, install)
        self.provider, self.package, self.install = provider, package, install

    def __str__(self) -> str:
        return f"Models of {self.provider!r} need the package {self.package!r}: {self.install}"


class ModelKeyMissingError(ModelError):
    """A model's provider wants a key, and there is none."""

    def __init__(self, provider: str, variable: str) -> None:
        super().__init__(provider, variable)
        self.provider, self.variable = provider, variable

    def __str__(self) -> str:
        return (
            f"Models of {self.provider!r} need a key: set the environment variable {self.variable}, "
            "or pass api_key in the model's configuration. Nothing was saved."
        )


class ToolServerError(PetalError, ConnectionError):
    """An MCP server does not give its tools.

    Attributes:
        where: The server's command or address.
        problem: What went wrong.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where, self.problem = where, problem

    def __str__(self) -> str:
        return f"MCP server {self.where!r}: {self.problem}"


class ThreadIdRequiredError(PetalError, ValueError):
    """A checkpointer is on, and no thread was named."""

    def __str__(self) -> str:
        return (
            "This agent keeps its state, so a run needs a thread: pass thread_id='user-123', or "
            "config={'configurable': {'thread_id': 'user-123'}}. The same id continues the same conversation."
        )


class CheckpointerRequiredError(PetalError):
    """State was asked of an agent that keeps none."""

    def __str__(self) -> str:
        return (
            "This agent has no checkpointer, so it has no threads; add "
            ".with_checkpointer(CheckpointerConfig(type='sqlite', config={'db_file': 'petal.db'}))."
        )


class StepRejectedError(PetalError):
    """A human said no to a step whose approval has `on_reject="fail"`."""

    def __init__(self, step: str, reason: str | None = None) -> None:
        super().__init__(step, reason)
        self.step, self.reason = step, reason

    def __str__(self) -> str:
        return f"Step {self.step!r} was not approved" + (f": {self.reason}" if self.reason else ".")


class StepGoneError(PetalError, LookupError):
    """A run would go on at a step that the agent no longer has. Nothing was run or saved.

    Attributes:
        step: The step.
        known: Those that the agent has; of a graph within a step, that graph's.
        within: The step in which that graph runs; "" for the agent itself.
    """

    def __init__(self, thread_id: str, step: str, known: Sequence[str], within: str = "") -> None:
        super().__init__(thread_id, step, known, within)
        self.thread_id, self.step, self.known, self.within = thread_id, step, known, within

    def __str__(self) -> str:
        whose = f"the graph of step {self.within!r}" if self.within else "the agent"
        return (
            f"Thread {self.thread_id!r} would go on at step {self.step!r}, which {whose} no longer has. "
            f"{known_names(self.step, self.known)} Give the step its name back, or move the thread on with "
            "update(values, as_node=...), or send new input, which drops what was left to do."
        )


class EffectError(PetalError):
    """What a step does cannot be recorded, or cannot be told from the record.

    Attributes:
        name: The name of the `petal.step` or the tool.
    """

    name: str


class EffectMismatchError(EffectError, ValueError):
    """The step ran before and called something of this name with other arguments. It was not called now.

    Attributes:
        recorded: The arguments on record, cut.
        given: Those of now, cut.
    """

    def __init__(self, name: str, recorded: str, given: str) -> None:
        super().__init__(name, recorded, given)
        self.name, self.recorded, self.given = name, recorded, given

    def __str__(self) -> str:
        return (
            f"{self.name!r} was called with {self.recorded} when this step ran before, and now with {self.given}; it "
            "was not called again. A step that is run again has to call the same things in the same order with the "
            "same arguments: pass on what its state or an earlier petal.step gave it, not the time or chance. If the "
            "code was changed, give the call another name, or fork the thread before the step."
        )


class UnknownEffectError(EffectError):
    """It began and nothing tells whether it ended, and it has `on_unknown="fail"`. It was not called again.

    Attributes:
        arguments: Its arguments, cut.
        key: Its idempotency key, by which the other side may know it.
        started: When it began, in ISO 8601.
    """

    def __init__(self, name: str, arguments: str, key: str, started: str) -> None:
        super().__init__(name, arguments, key, started)
        self.name, self.arguments, self.key, self.started = name, arguments, key, started

    def __str__(self) -> str:
        return (
            f"{self.name!r} with {self.arguments} began at {self.started} and never ended, so it may have happened. "
            f"Look for its idempotency key {self.key!r} on the other side; then set on_unknown='run' to call it again "
            "under the same key, or 'ask' to give its result, and resume."
        )


class EffectNotRecordedError(EffectError, LookupError):
    """A dry run came to something whose result is not on record. Nothing was called.

    Attributes:
        arguments: Its arguments, cut.
        problem: What there is instead.
    """

    def __init__(self, name: str, arguments: str, problem: str = "nothing like it is on record") -> None:
        super().__init__(name, arguments, problem)
        self.name, self.arguments, self.problem = name, arguments, problem

    def __str__(self) -> str:
        return (
            f"{self.name!r} with {self.arguments} cannot be answered from the record: {self.problem}. Nothing was "
            "called; run on without replay='dry' to call it."
        )


class EffectResultError(EffectError, TypeError):
    """The result would not come back as it is, so it was not recorded. The call itself happened.

    Attributes:
        type_name: The type that is the cause.
        reason: Why, and what to do about it.
    """

    def __init__(self, name: str, type_name: str, reason: str) -> None:
        super().__init__(name, type_name, reason)
        self.name, self.type_name, self.reason = name, type_name, reason

    def __str__(self) -> str:
        return (
            f"{self.name!r} was called and returned a {self.type_name} that cannot be recorded: {self.reason} Return "
            "plain data, or a type that the state declares. It counts as begun and not ended."
        )


class OutsideStepError(PetalError, RuntimeError):
    """An idempotency key is asked for where no step of a graph runs."""

    def __str__(self) -> str:
        return (
            "petal.idempotency_key() has a meaning only within a step of a graph, in the thread and the context in "
            "which LangGraph or petal.step called it."
        )


class PendingInterruptError(PetalError, ValueError):
    """New input came while a question was open. Nothing was run or saved.

    Attributes:
        questions: `(interrupt id, what it asks)` for each open question; long texts are cut.
    """

    def __init__(self, thread_id: str, questions: Sequence[tuple[str, str]]) -> None:
        super().__init__(thread_id, questions)
        self.thread_id, self.questions = thread_id, questions

    def __str__(self) -> str:
        return (
            f"Thread {self.thread_id!r} waits for an answer and takes no new input until then; resume it with one, or "
            f"send the input with on_pending='abandon' to give up {_all_of(self.questions)}"
        )


class ResumeError(PetalError):
    """An answer does not fit what the thread is waiting for. The thread waits as before."""


class NothingToResumeError(ResumeError, LookupError):
    """The thread has no open question, or not even an unfinished run.

    Attributes:
        unfinished: Whether it has a run that can go on without an answer.
    """

    def __init__(self, thread_id: str, unfinished: bool = False) -> None:
        super().__init__(thread_id, unfinished)
        self.thread_id, self.unfinished = thread_id, unfinished

    def __str__(self) -> str:
        if self.unfinished:
            return (
                f"Thread {self.thread_id!r} waits for no answer, but has an unfinished run; resume it without a value."
            )
        return f"Thread {self.thread_id!r} waits for no answer and has no unfinished run; send it new input instead."


class UnknownThreadError(NothingToResumeError):
    """There is no thread of that id, so there is nothing to answer or to go on with."""

    def __str__(self) -> str:
        return (
            f"There is no thread {self.thread_id!r} to resume; `petal threads list` lists the threads there are. "
            "New input would begin it."
        )


class InterruptIdRequiredError(ResumeError, ValueError):
    """One value cannot answer: there are several questions, or no answer was given to any.

    Attributes:
        questions: `(interrupt id, what it asks)` for each open question; long texts are cut.
    """

    def __init__(self, thread_id: str, questions: Sequence[tuple[str, str]]) -> None:
        super().__init__(thread_id, questions)
        self.thread_id, self.questions = thread_id, questions

    def __str__(self) -> str:
        need = (
            "pass interrupt_id to say which one is answered"
            if len(self.questions) > 1
            else "pass a value that answers it"
        )
        return f"Thread {self.thread_id!r} waits for an answer; {need}:\n{_lines(self.questions)}"


class UnknownInterruptError(ResumeError, LookupError):
    """The thread never asked the question of that id, or no longer knows that it did.

    Attributes:
        questions: `(interrupt id, what it asks)` for each open question; long texts are cut.
    """

    def __init__(self, thread_id: str, interrupt_id: str, questions: Sequence[tuple[str, str]]) -> None:
        super().__init__(thread_id, interrupt_id, questions)
        self.thread_id, self.interrupt_id, self.questions = thread_id, interrupt_id, questions

    def __str__(self) -> str:
        return (
            f"Thread {self.thread_id!r} has no open question {self.interrupt_id!r}; it may be another thread's. "
            f"{_open(self.questions)}"
        )


class ClosedInterruptError(UnknownInterruptError):
    """The question is not open any more.

    Attributes:
        answered: Whether it was answered; else it was given up, for new input or an edit.
    """

    def __init__(
        self, thread_id: str, interrupt_id: str, questions: Sequence[tuple[str, str]], answered: bool = True
    ) -> None:
        super().__init__(thread_id, interrupt_id, questions)
        self.args = (thread_id, interrupt_id, questions, answered)
        self.answered = answered

    def __str__(self) -> str:
        became = "was answered already, and that answer stands" if self.answered else "was given up"
        return f"Question {self.interrupt_id!r} of thread {self.thread_id!r} {became}. {_open(self.questions)}"


def _lines(questions: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {id}: {question}" for id, question in questions)


def _all_of(questions: Sequence[tuple[str, str]]) -> str:
    return f"{'its questions' if len(questions) > 1 else 'the question'}:\n{_lines(questions)}"


def _open(questions: Sequence[tuple[str, str]]) -> str:
    return f"Open:\n{_lines(questions)}" if questions else "No question is open."


class InvalidAnswerError(ResumeError, ValueError):
    """The answer is not one that the question allows; the question stays open."""

    def __init__(self, answer: str, problem: str) -> None:
        super().__init__(answer, problem)
        self.answer, self.problem = answer, problem

    def __str__(self) -> str:
        return f"{self.answer} does not answer the question: {self.problem}. It is still open."


class CheckpointerError(PetalError):
    """State cannot be kept or read."""


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
        return (
            f"Thread {self.thread_id!r} has no checkpoint {self.name!r}, and no branch of that name. "
            f"{known_names(self.name, self.known)}"
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
