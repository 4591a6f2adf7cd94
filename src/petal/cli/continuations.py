"""The commands that go on where one ended, ready to be copied."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from petal.cli.databases import repeated
from petal.cli.failures import note
from petal.cli.rendering import printable, question

if TYPE_CHECKING:
    from langgraph.types import Interrupt


@dataclass(frozen=True, slots=True)
class Continuation:
    """How this command's thread is named in the next command."""

    file: Path | str
    thread_id: str
    database: str | None = None
    """As it was given to this command."""

    def command(self, *words: str) -> str:
        """`petal run` on the thread, with further words."""
        known = ["petal", "run", str(self.file), "--thread", self.thread_id, *repeated(self.database)]
        return shlex.join([*known, *words])

    def answers(self, interrupts: Sequence[Interrupt]) -> list[tuple[str, str]]:
        """Each open question, with the command that answers it."""
        many = len(interrupts) > 1
        return [
            (question(asked), self.command("--resume", *(["--interrupt", asked.id] if many else []), "--answer", "yes"))
            for asked in interrupts
        ]

    def tell_questions(self, interrupts: Sequence[Interrupt]) -> None:
        """Say what the agent waits for and how to answer."""
        for asked, command in self.answers(interrupts):
            note(f"the agent asks: {printable(asked, sys.stderr)}")
            note(f"answer it with: {command}")

    def tell_resumption(self) -> None:
        """Say how an unfinished run goes on."""
        note(f"nothing that was done is lost; go on with: {self.command('--resume')}")
