"""Where the lines of a chat come from: somebody at a terminal, or a file."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO

KEPT = 1000
"""Lines of the history at most."""


class Lines(Protocol):
    """A source of lines."""

    interactive: bool
    """Whether somebody sits there."""

    def read(self, prompt: str) -> str:
        """The next line, without its end; EOFError after the last."""
        ...


class Piped:
    """Lines of a file or a pipe; nobody is prompted."""

    interactive = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def read(self, prompt: str) -> str:
        """The next line."""
        line = self._stream.readline()
        if not line:
            raise EOFError
        return line.removesuffix("\n")


class Typed:
    """Lines of somebody at a terminal, who can recall the earlier ones with the arrow keys."""

    interactive = True

    def __init__(self) -> None:
        self._history = history_file()
        try:
            import readline
        except ImportError:  # Windows has its own recall
            self._readline = None
        else:
            self._readline = readline
            readline.set_history_length(KEPT)
            with suppress(OSError):  # the first chat has no history
                readline.read_history_file(self._history)

    def read(self, prompt: str) -> str:
        """The next line, which is added to the history at once, so that it also outlives a kill."""
        sys.stderr.flush()
        line = input(prompt)
        if self._readline is not None and line.strip():
            self._save()
        return line

    def _save(self) -> None:
        assert self._readline is not None
        try:
            self._history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._history, os.O_CREAT | os.O_WRONLY, 0o600))
            self._readline.write_history_file(self._history)
        except OSError:
            self._readline = None  # a home that cannot be written to: no recall in the next chat, and no more tries


def lines_of(stream: TextIO) -> Lines:
    """The lines of a stream, prompted for where it is a terminal."""
    return Typed() if stream.isatty() else Piped(stream)


def history_file() -> Path:
    """Where typed lines are kept: below `XDG_STATE_HOME`, or `~/.local/state`."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "petal" / "chat_history"
