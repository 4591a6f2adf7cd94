"""`petal run`: one message, one answer."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petal.cli.continuations import Continuation
from petal.cli.databases import require_existing
from petal.cli.failures import ExitCode, leave_at_once, note, report
from petal.cli.loading import answers_in_words, keeps_threads, load
from petal.cli.options import AgentFile, AsJson, Database, Debug, ThreadName, optional
from petal.cli.rendering import print_json
from petal.cli.shortening import only, whole_thread
from petal.cli.speaking import Speaker
from petal.cli.turns import Outcome, Silence, play
from petal.errors import CheckpointerError, PendingInterruptError, known_names

if TYPE_CHECKING:
    from petal.core.agent import Agent
    from petal.core.questions import OnPending

STDIN = "-"


def run(
    agent: AgentFile,
    message: Annotated[
        str | None,
        optional("--message", "-m", metavar="TEXT", help="What to say; - reads it from stdin, as does a pipe."),
    ] = None,
    input: Annotated[
        str | None,
        optional(
            "--input", metavar="JSON", help="The state's values to begin with, instead of a message; - reads stdin."
        ),
    ] = None,
    thread: ThreadName = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on with a run that was cut off, or answer with --answer.")
    ] = False,
    answer: Annotated[
        str | None, optional("--answer", metavar="VALUE", help="Answer the open question: JSON, or else text.")
    ] = None,
    interrupt: Annotated[
        str | None, optional("--interrupt", metavar="ID", help="Which question is answered, if several are open.")
    ] = None,
    abandon: Annotated[
        bool,
        typer.Option("--abandon", metavar="", help="Give up the open question, and begin anew with the message."),
    ] = False,
    db: Database = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run an agent once: say something, or resume a thread.

    The answer goes to stdout while it is made; everything else to stderr. A thread remembers: the same
    --thread goes on with the same conversation.

    `petal run agent.yaml --thread ada --message "my name is Ada"`
    """
    asked = Request(agent, message, input, thread, resume or answer is not None, answer, interrupt, abandon, db)
    asked.check()
    with load(agent, db) as built:
        asked.check_agent(built)
        outcome = asked.carried_out(built, as_json, debug)
        if as_json:
            print_json(outcome.as_json())
        elif not outcome.interrupts and not answers_in_words(built):
            print_json(outcome.values)
        if outcome.interrupts:
            _tell_questions(built, asked, outcome)
            raise typer.Exit(ExitCode.WAITING)


@dataclass(slots=True)
class Request:
    """What one call of `petal run` was asked to do."""

    file: Path
    message: str | None
    input: str | None
    thread: str | None
    resume: bool
    answer: str | None
    interrupt: str | None
    abandon: bool
    db: str | None

    def check(self) -> None:
        """Refuse words that do not go together, before anything is loaded."""
        if self.message is not None and self.input is not None:
            raise typer.BadParameter(
                "--message and --input are two ways to say one thing; keep one.", param_hint="--input"
            )
        if self.resume:
            if self.message is not None or self.input is not None:
                raise typer.BadParameter(
                    "--resume goes on without a new message; leave out either of them.", param_hint="--resume"
                )
            if self.thread is None:
                raise typer.BadParameter("resume which thread? Add --thread ID.", param_hint="--resume")
            if self.abandon:
                raise typer.BadParameter(
                    "it gives the open question up for a new message; --resume answers it or goes on.",
                    param_hint="--abandon",
                )
        if self.interrupt is not None and self.answer is None:
            raise typer.BadParameter("it names the question that --answer VALUE answers.", param_hint="--interrupt")
        if self.thread == "":
            raise typer.BadParameter("an id has at least one character.", param_hint="--thread")

    def check_agent(self, agent: Agent) -> None:
        """Refuse a thread where none is kept."""
        kept = agent.checkpointer is not None
        if self.thread is not None and not kept:
            raise typer.BadParameter(
                f"{self.file} keeps no state, so it has no threads; add --db URL, or a checkpointer to the file.",
                param_hint="--resume" if self.resume else "--thread",
            )
        if self.resume and not keeps_threads(agent):
            raise typer.BadParameter(
                f"{self.file} keeps its state in memory, which ended with the last command; add --db URL.",
                param_hint="--resume",
            )

    def carried_out(self, agent: Agent, quiet: bool, debug: bool) -> Outcome:
        """Do it, and if it fails say how to go on."""
        input = None if self.resume else self._input(agent)
        if self.resume:
            self._find_thread(agent)
        elif self.thread is None and agent.checkpointer is not None:
            self.thread = str(uuid.uuid4())
            if keeps_threads(agent):
                note(f"thread {self.thread}; go on with it: {self.continuation.command()}")
        speaker = Speaker()
        try:
            stream = self._resumption(agent) if self.resume else self._new_run(agent, input)
            return play(agent, stream, self.thread, Silence() if quiet else speaker)
        except KeyboardInterrupt:
            speaker.end_line()
            note("stopped")
            self._tell_rest(agent)
            leave_at_once(ExitCode.STOPPED)
        except BrokenPipeError:
            raise
        except Exception as error:
            speaker.end_line()
            report(error, debug=debug)
            self._tell_rest(agent, error)
            if isinstance(error, PendingInterruptError):
                note("or add --abandon to the message, to give the question up")
            raise typer.Exit(ExitCode.FAILED) from error
        finally:
            speaker.end_line()

    @property
    def continuation(self) -> Continuation:
        """The commands that go on with this thread."""
        assert self.thread is not None
        return Continuation(self.file, self.thread, self.db)

    def _input(self, agent: Agent) -> Any:
        if self.input is not None:
            given = _parsed(_read_stdin() if self.input == STDIN else self.input)
            _check_keys(given, agent)
            return given
        if self.message is not None and self.message != STDIN:
            return agent.input_of(self.message)
        if self.message is None and sys.stdin.isatty():
            raise typer.BadParameter(
                "what shall it answer? Pass --message TEXT, or pipe text in.", param_hint="--message"
            )
        text = _read_stdin().removesuffix("\n")
        if not text.strip():
            raise typer.BadParameter("stdin is empty; pass --message TEXT, or pipe text in.", param_hint="--message")
        return agent.input_of(text)

    def _find_thread(self, agent: Agent) -> None:
        """Let the thread be shortened: one that is resumed exists already."""
        from petal.core.config.checkpointer import CheckpointerConfig

        assert isinstance(agent.config.checkpointer, CheckpointerConfig)
        assert self.thread is not None
        require_existing(agent.config.checkpointer)
        self.thread = whole_thread(agent.checkpointer, self.thread)

    def _new_run(self, agent: Agent, input: Any) -> Callable[..., Iterator[Any]]:
        on_pending: OnPending = "abandon" if self.abandon else "error"
        return partial(agent.stream, input, thread_id=self.thread, on_pending=on_pending)

    def _resumption(self, agent: Agent) -> Callable[..., Iterator[Any]]:
        assert self.thread is not None
        thread = agent.thread(self.thread)
        if self.answer is None:
            return thread.stream_resume
        interrupt = self.interrupt
        if interrupt is not None:
            interrupt = only([asked.id for asked in thread.interrupts()], interrupt, "questions") or interrupt
        return partial(thread.stream_resume, answer_of(self.answer), interrupt_id=interrupt)

    def _tell_rest(self, agent: Agent, told: Exception | None = None) -> None:
        """Say how the thread goes on, if there is something to go on with; what was told already is not repeated."""
        if self.thread is None or not keeps_threads(agent):
            return
        try:
            snapshot = agent.thread(self.thread).state()
        except CheckpointerError as error:
            # The database is gone too; what was said of the run itself is more to the point.
            if str(error) != str(told):
                note(f"the thread cannot be read: {error}")
            return
        if snapshot.interrupts:
            self.continuation.tell_questions(snapshot.interrupts)
        elif snapshot.next:
            self.continuation.tell_resumption()


def answer_of(text: str) -> Any:
    """An answer as it is typed: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parsed(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"this is no JSON: {error}.", param_hint="--input") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(
            'it is an object with keys of the state, e.g. {"topic": "bees"}.', param_hint="--input"
        )
    return value


def _check_keys(given: dict[str, Any], agent: Agent) -> None:
    """Refuse what the graph would drop without a word."""
    from petal.types.state import state_keys

    known = state_keys(agent.config.state_type)
    if answers_in_words(agent) and "messages" not in known:
        known = (*known, "messages")
    for key in given:
        if key not in known:
            raise typer.BadParameter(f"the state has no key {key!r}. {known_names(key, known)}", param_hint="--input")


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"stdin is not UTF-8 (byte {error.start}).", param_hint="--message") from None


def _tell_questions(agent: Agent, asked: Request, outcome: Outcome) -> None:
    if keeps_threads(agent):
        asked.continuation.tell_questions(outcome.interrupts)
        return
    for interrupt in outcome.interrupts:
        from petal.cli.rendering import printable, question

        note(f"the agent asks: {printable(question(interrupt), sys.stderr)}")
    note(f"nothing keeps the thread until it is answered; run it with --db URL, or add a checkpointer to {asked.file}")
