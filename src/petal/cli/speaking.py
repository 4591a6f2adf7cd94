"""What the agent says goes to stdout as it comes; everything else goes to stderr."""

from __future__ import annotations

from petal.cli.failures import note
from petal.cli.rendering import printable


class Speaker:
    """Writes what the agent says, each message on lines of its own.

    Args:
        steps: Whether to tell on stderr which steps are done.
    """

    def __init__(self, *, steps: bool = True) -> None:
        self._steps = steps
        self._current: str | None = None
        self._open_line = False

    def token(self, message_id: str | None, text: str) -> None:
        """Write a piece at once."""
        if message_id != self._current:
            self.end_line()
            self._current = message_id
        self._write(text)

    def message(self, text: str) -> None:
        """Write a whole message."""
        self.end_line()
        self._write(text)
        self.end_line()

    def step(self, name: str) -> None:
        """Tell that a step is done."""
        if self._steps:
            self.end_line()
            note(f"step {name} is done")

    def end_line(self) -> None:
        """End the line that was begun, if one was."""
        if self._open_line:
            print(flush=True)
        self._open_line = False
        self._current = None

    def _write(self, text: str) -> None:
        print(printable(text), end="", flush=True)
        if text:
            self._open_line = not text.endswith("\n")
