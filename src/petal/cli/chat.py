"""`petal chat`: a conversation that outlives the terminal it is held in."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from petal.cli.continuations import Continuation
from petal.cli.failures import ExitCode, leave_at_once, note, report
from petal.cli.lines import Lines, lines_of
from petal.cli.loading import keeps_threads, load
from petal.cli.options import AgentFile, AsJson, Database, Debug, ThreadName
from petal.cli.rendering import conversation, message_line, print_json, printable, question
from petal.cli.run import answer_of
from petal.cli.speaking import Speaker
from petal.cli.turns import Outcome, Silence, play
from petal.errors import PendingInterruptError, ResumeError

if TYPE_CHECKING:
    from langgraph.types import Interrupt

    from petal.core.agent import Agent

HELP = """/resume   go on with an answer that was cut off
/history  what was said so far
/thread   the id of this conversation, and the command that comes back to it
/help     these lines
/exit     end; ctrl-d does too. The conversation is kept.
A message that begins with a slash: put a space before it."""


def chat(
    agent: AgentFile, thread: ThreadName = None, db: Database = None, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Talk with an agent; ctrl-c stops an answer, ctrl-d or /exit ends.

    The same --thread comes back to the same conversation. Where stdin is no terminal, each of its lines is a
    message; with --json each answer is then one line of JSON.
    """
    with load(agent, db, in_memory=True) as built:
        if thread is not None and not keeps_threads(built):
            raise typer.BadParameter(
                f"{agent} keeps nothing beyond this command; add --db URL, or a database to the file.",
                param_hint="--thread",
            )
        built.input_of("")  # an agent that takes no text says so before the first prompt
        lines = lines_of(sys.stdin)
        talk = Conversation(built, agent, thread or str(uuid.uuid4()), db, lines, as_json, debug)
        talk.greet()
        talk.hold()


@dataclass(slots=True)
class Conversation:
    """One chat, from its first line to its last."""

    agent: Agent
    file: Path
    thread_id: str
    db: str | None
    lines: Lines
    as_json: bool
    debug: bool
    interrupts: tuple[Interrupt, ...] = ()
    cut_off: bool = False
    """Whether a run can go on."""
    stopped: bool = False
    """Whether a run was stopped, whose last step may still be running."""
    speaker: Speaker = field(default_factory=lambda: Speaker(steps=False))

    def greet(self) -> None:
        """Say where the conversation stands."""
        if keeps_threads(self.agent):
            note(f"thread {self.thread_id}; come back to it: {self._command}")
        else:
            note("this conversation is kept in memory only, and ends with this command; --db runs.db would keep it")
        if self.lines.interactive:
            note("/help lists what you can type besides messages")
        self._look()
        if self.cut_off:
            note("the last answer was cut off: /resume goes on with it, a message begins anew")

    def hold(self) -> None:
        """Take line after line until the last."""
        while True:
            self._ask()
            try:
                line = self.lines.read("answer> " if self.interrupts else "> ")
            except EOFError:
                break
            except KeyboardInterrupt:
                if not self.lines.interactive:
                    raise
                note("ctrl-d or /exit ends")
                continue
            if line.strip() == "/exit":
                break
            if line.startswith("/"):
                self._command_line(line.strip())
            elif line.strip():
                self._take(line.strip())
        if self.interrupts:
            if keeps_threads(self.agent):
                self._continuation.tell_questions(self.interrupts)
            code = ExitCode.WAITING
        else:
            code = ExitCode.DONE
        if self.stopped:
            leave_at_once(code)
        raise typer.Exit(code)

    def _ask(self) -> None:
        for asked in self.interrupts[:1]:
            note(f"the agent asks: {printable(question(asked), sys.stderr)}")

    def _take(self, text: str) -> None:
        """A line is the answer where a question is open, else a message."""
        if self.interrupts:
            thread, asked = self.agent.thread(self.thread_id), self.interrupts[0]
            self._run(partial(thread.stream_resume, answer_of(text), interrupt_id=asked.id))
        else:
            self._run(partial(self.agent.stream, text, thread_id=self.thread_id))

    def _command_line(self, line: str) -> None:
        match line:
            case "/resume":
                self._run(self.agent.thread(self.thread_id).stream_resume)
            case "/history":
                for message in conversation(self.agent.thread(self.thread_id).state().values):
                    print(printable(message_line(message)), flush=True)
            case "/thread":
                kept = f"; come back to it: {self._command}" if keeps_threads(self.agent) else ""
                note(f"thread {self.thread_id}{kept}")
            case "/help":
                print(HELP, file=sys.stderr, flush=True)
            case _:
                note(f"no command {line.split()[0]!r}; /help lists them. Put a space before a message like this.")

    def _run(self, stream: Callable[..., Iterator[Any]]) -> None:
        """One run; what it fails with ends a script, and is only told to a person, who can say what next."""
        try:
            outcome = play(self.agent, stream, self.thread_id, Silence() if self.as_json else self.speaker)
        except KeyboardInterrupt:
            self.speaker.end_line()
            self._look()
            note("stopped" + ("; /resume goes on, a message begins anew" if self.cut_off else ""))
            self.stopped = True
            if not self.lines.interactive:
                leave_at_once(ExitCode.STOPPED)
        except BrokenPipeError:
            raise
        except Exception as error:
            self.speaker.end_line()
            report(error, debug=self.debug)
            if not self.lines.interactive:
                raise typer.Exit(ExitCode.FAILED) from error
            self._look()
            if self.cut_off and not isinstance(error, PendingInterruptError | ResumeError):
                note("nothing that was done is lost: /resume tries again, a message begins anew")
        else:
            self._ended(outcome)

    def _ended(self, outcome: Outcome) -> None:
        self.speaker.end_line()
        self.interrupts, self.cut_off = outcome.interrupts, False
        if self.as_json:
            print_json(outcome.as_json(), indent=None)

    def _look(self) -> None:
        """Read where the thread stands."""
        snapshot = self.agent.thread(self.thread_id).state()
        self.interrupts = snapshot.interrupts
        self.cut_off = bool(snapshot.next) and not snapshot.interrupts

    @property
    def _continuation(self) -> Continuation:
        return Continuation(self.file, self.thread_id, self.db)

    @property
    def _command(self) -> str:
        return self._continuation.command().replace("petal run", "petal chat", 1)
