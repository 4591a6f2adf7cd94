"""`petal chat` at a real terminal, and fed by a pipe."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nursery import Nursery

SLOW = """
name: slow
llm: "demo:"
checkpointer: {type: sqlite, config: {db_file: runs.db}}
steps:
  - {type: custom, name: work, config: {function: "steps:work"}}
  - {type: llm, name: chat}
"""

ASKS = """
llm: "demo:"
checkpointer: {type: sqlite, config: {db_file: runs.db}}
steps: [{type: llm, name: chat, approval: "Shall I answer?"}]
"""

BARE = 'llm: "demo:"\nsteps: [{type: llm, name: chat}]\n'

STEPS = '''
"""A step that waits for the file `go`."""

import time
from pathlib import Path


def work(state):
    with open("trace", "a") as file:
        file.write("work\\n")
    while not Path("go").exists():
        time.sleep(0.02)
    if Path("bad").exists():
        raise ValueError("no bread")
    return {}
'''

# A terminal belongs to a session: its first process takes it, and then gets ctrl-c from it.
AT_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'petal.cli', *sys.argv[1:]])\n"
)
PROMPT = "> "
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"
SECONDS = 100
"""How long a process may take to say something: other tests start many at the same time."""

pytestmark = pytest.mark.timeout(300)


class Terminal:
    """Somebody at a terminal."""

    def __init__(self, keyboard: int, process: subprocess.Popen[bytes]) -> None:
        self.keyboard, self.process = keyboard, process
        self.seen = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.keyboard, text.encode())

    def say(self, line: str) -> None:
        """Type a line."""
        self.type(line + "\n")

    def interrupt(self, until: str) -> None:
        """Press ctrl-c at the prompt, once more if nothing happens, and read what does.

        Python's readline loses sight of one that comes after the prompt is shown and before it waits for keys.
        """
        for _ in range(SECONDS // 5):
            self.type(CTRL_C)
            if self._appears(until, 5):
                break
        self.read(until)

    def read(self, until: str) -> str:
        """What appears, up to and with some text."""
        assert self._appears(until, SECONDS), f"{until!r} did not appear after {self.seen!r}"
        found, _, self.seen = self.seen.partition(until)
        return found + until

    def _appears(self, text: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.keyboard], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return False
            try:
                piece = os.read(self.keyboard, 4096)
            except OSError:  # Linux's way of saying that the other end is closed
                piece = b""
            assert piece, f"the chat ended without {text!r}, after {self.seen!r}"
            self.seen += piece.decode()
        return True

    def end(self) -> int:
        """Wait for the end, and read until then, as a terminal does."""
        while True:
            try:
                if not os.read(self.keyboard, 4096):
                    break
            except OSError:
                break
        return self.process.wait(SECONDS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with agents in it, and a home of its own for the history of typed lines."""
    for name, text in {"slow.yaml": SLOW, "asks.yaml": ASKS, "bare.yaml": BARE, "steps.py": STEPS}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("INPUTRC", os.devnull)
    return tmp_path


@contextmanager
def terminal(folder: Path, *words: str) -> Iterator[Terminal]:
    """The chat at a terminal of its own."""
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL, "chat", *words],
        cwd=folder,
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
    )
    os.close(screen)
    try:
        yield Terminal(keyboard, process)
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


Piped = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def piped(nursery: Nursery, folder: Path) -> Piped:
    """The chat with its lines from a pipe."""
    return lambda text, *words: nursery.run(["-m", "petal.cli", "chat", *words], folder, text=text)


def test_a_conversation_remembers(folder: Path) -> None:
    """Line by line, over the end of the process, with the lines typed before under the arrow key."""
    with terminal(folder, "bare.yaml", "--thread", "ada", "--db", "a.db") as at:
        at.read(PROMPT)
        at.say("my name is Ada")
        assert "Nice to meet you, Ada!\r\n" in at.read("!\r\n")
        at.read(PROMPT)
        at.say("what is my name?")
        at.read("Your name is Ada.\r\n")
        at.read(PROMPT)
        at.type(CTRL_D)
        assert at.end() == 0
    history = folder / "state" / "petal" / "chat_history"
    assert history.stat().st_mode & 0o777 == 0o600
    with terminal(folder, "bare.yaml", "--thread", "ada", "--db", "a.db") as at:
        at.read(PROMPT)
        at.type(UP)
        at.read("what is my name?")
        at.say("")
        at.read("Your name is Ada.\r\n")
        at.read(PROMPT)
        at.say("/exit")
        assert at.end() == 0


def test_ctrl_c_stops_an_answer_that_can_go_on(folder: Path) -> None:
    """Either in the same chat or in the next; at the prompt it only says how to end."""
    with terminal(folder, "slow.yaml", "--thread", "t") as at:
        at.read(PROMPT)
        at.interrupt("ctrl-d or /exit ends")
        at.read(PROMPT)
        at.say("hello")
        while not (folder / "trace").exists():
            time.sleep(0.02)
        at.type(CTRL_C)
        at.read("petal: stopped; /resume goes on, a message begins anew")
        at.read(PROMPT)
        at.say("/exit")
        assert at.end() == 0
    (folder / "go").touch()
    with terminal(folder, "slow.yaml", "--thread", "t") as at:
        at.read("the last answer was cut off: /resume goes on with it")
        at.read(PROMPT)
        at.say("/resume")
        at.read("(demo model) You said: hello\r\n")
        at.read(PROMPT)
        at.say("/resume")
        at.read("has no unfinished run")
        at.read(PROMPT)
        at.say("something new")
        at.read("You said: something new\r\n")


def test_a_failed_step_can_be_tried_again(folder: Path) -> None:
    """The chat goes on, and says how."""
    (folder / "go").touch()
    (folder / "bad").touch()
    with terminal(folder, "slow.yaml", "--thread", "t") as at:
        at.read(PROMPT)
        at.say("hello")
        at.read("petal: step 'work' failed: ValueError: no bread")
        at.read("/resume tries again")
        (folder / "bad").unlink()
        at.read(PROMPT)
        at.say("/resume")
        at.read("You said: hello\r\n")


def test_a_question_is_answered_at_the_prompt(folder: Path) -> None:
    """A wrong answer is asked again, in this chat and in the next."""
    with terminal(folder, "asks.yaml", "--thread", "t") as at:
        at.read(PROMPT)
        at.say("hello")
        at.read("the agent asks: Shall I answer?")
        at.read("answer> ")
        at.say("perhaps")
        at.read("does not answer the question")
        at.read("answer> ")
        at.type(CTRL_D)
        assert at.end() == 3
    with terminal(folder, "asks.yaml", "--thread", "t") as at:
        at.read("the agent asks: Shall I answer?")
        at.read("answer> ")
        at.say("yes")
        at.read("You said: hello\r\n")


def test_a_question_that_was_answered_elsewhere_is_not_answered_twice(folder: Path) -> None:
    """The chat says so, looks again, and goes on."""
    with terminal(folder, "asks.yaml", "--thread", "t") as at:
        at.read(PROMPT)
        at.say("hello")
        at.read("answer> ")
        elsewhere = [sys.executable, "-m", "petal.cli", "run", "asks.yaml", "--thread", "t", "--answer", "yes"]
        assert subprocess.run(elsewhere, cwd=folder, capture_output=True, check=False).returncode == 0
        at.say("yes")
        at.read("was answered already, and that answer stands. No question is open.")
        at.read(PROMPT)
        at.say("/history")
        at.read("Agent: (demo model) You said: hello\r\n")


def test_lines_of_a_pipe_are_messages(piped: Piped) -> None:
    """Only answers are on stdout; commands work; an agent without a checkpointer remembers as long as it lasts."""
    done = piped(
        "my name is Ada\n\n/help\n/nonsense\n /not a command\nwhat is my name?\n/history\n/exit\nlost\n", "bare.yaml"
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "Nice to meet you, Ada!",
        "(demo model) You said: /not a command",
        "Your name is Ada.",
        "You: my name is Ada",
        "Agent: Nice to meet you, Ada!",
        "You: /not a command",
        "Agent: (demo model) You said: /not a command",
        "You: what is my name?",
        "Agent: Your name is Ada.",
    ]
    assert "kept in memory only" in done.stderr
    assert "no command '/nonsense'" in done.stderr
    assert "/resume   go on" in done.stderr


def test_a_pipe_answers_questions(piped: Piped) -> None:
    """A line answers the question before it; one that is left open is exit code 3."""
    open_still = piped("hi\n", "asks.yaml", "--thread", "t")
    assert (open_still.returncode, open_still.stdout) == (3, "")
    assert "petal run asks.yaml --thread t --resume --answer yes" in open_still.stderr
    answered = piped("yes\n/thread\n", "asks.yaml", "--thread", "t")
    assert (answered.returncode, answered.stdout) == (0, "(demo model) You said: hi\n")
    assert "petal chat asks.yaml --thread t" in answered.stderr


def test_answers_for_programs_are_lines_of_json(piped: Piped) -> None:
    """One object a message."""
    done = piped("one\ntwo\n", "bare.yaml", "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["output"] for answer in answers] == ["(demo model) You said: one", "(demo model) You said: two"]
    assert {answer["status"] for answer in answers} == {"done"}


def test_a_failure_ends_a_script(piped: Piped, folder: Path) -> None:
    """Later lines may lean on the one that failed."""
    (folder / "go").touch()
    (folder / "bad").touch()
    done = piped("hello\nagain\n", "slow.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("step 'work' failed") == 1


def test_a_thread_needs_a_place(piped: Piped) -> None:
    """An id that nothing keeps would promise too much."""
    refused = piped("hi\n", "bare.yaml", "--thread", "t")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "keeps nothing beyond this command" in refused.stderr
