"""How a failure looks from outside: one line on stderr and an exit code that means something."""

from __future__ import annotations

import os
import re
import sys
import traceback
from enum import IntEnum
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from petal.errors import PetalError, words_of

DEBUG = "petal.debug"
"""Key in a context's `meta`: whether tracebacks are wanted."""

_STEP = re.compile(r"During task with name '(?P<step>.+)' and id '")


class ExitCode(IntEnum):
    """What the command's end says."""

    DONE = 0
    FAILED = 1
    WRONG_USE = 2
    WAITING = 3
    """A question of the agent is open."""
    STOPPED = 130
    """By ctrl-c."""


class Commands(TyperGroup):
    """The commands, with one place where whatever they raise becomes a message."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (typer.TyperException, typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.STOPPED) from None
        except Exception as error:
            report(error, debug=ctx.meta.get(DEBUG, False))
            raise typer.Exit(ExitCode.FAILED) from error


def note(text: str) -> None:
    """Tell the user something that is not the answer."""
    sys.stdout.flush()  # so that the two streams keep their order on a terminal
    print(f"petal: {text}", file=sys.stderr, flush=True)


def report(error: Exception, *, debug: bool = False) -> None:
    """Say what failed: Petal's own errors in their words, others with their type and the step they come from."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    note(explained(error))


def explained(error: BaseException) -> str:
    """An error as text without passwords; one line, unless it is one of Petal's that lists something."""
    from petal.core.config.checkpointer import redacted

    if isinstance(error, PetalError):
        return redacted(str(error))
    what = " ".join(f"{type(error).__name__}: {words_of(error)}".split()).removesuffix(":")
    step = step_of(error)
    return redacted(f"step {step!r} failed: {what}" if step else what)


def step_of(error: BaseException) -> str | None:
    """The step that an error comes from, the outermost of nested ones; LangGraph notes it on the error."""
    for text in reversed(getattr(error, "__notes__", [])):
        if found := _STEP.match(text):
            return found["step"]
    return None


def leave_at_once(code: ExitCode) -> NoReturn:
    """End the process without waiting for a step that cannot be stopped, as a function in a thread cannot.

    Nothing is lost by it: each finished step is on disk, and an unfinished one runs again.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
