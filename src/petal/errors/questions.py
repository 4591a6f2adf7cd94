"""Errors of questions and answers."""

from __future__ import annotations

from collections.abc import Sequence

from petal.errors.base import PetalError


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
