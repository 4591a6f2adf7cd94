"""Code blocks of Markdown files, and a way to run those in Python that await at the top."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^(?P<indent>[ \t]*)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its language, its code, and the heading above it."""

    file: Path
    line: int
    heading: str
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"


def blocks(file: Path) -> Iterator[Block]:
    """The blocks of a file, in their order."""
    text = file.read_text()
    for found in BLOCK.finditer(text):
        headings = re.findall(r"^#+ (.*)$", text[: found.start()], re.M)
        yield Block(
            file,
            text.count("\n", 0, found.start("code")) + 1,
            headings[-1] if headings else "",
            found["language"],
            textwrap.dedent(found["code"]),
        )


async def execute(block: Block, names: dict[str, Any]) -> dict[str, Any]:
    """Run a block of Python and return the names that it leaves."""
    padded = "\n" * (block.line - 1) + block.code
    code = compile(padded, str(block.file), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    space = {"__name__": "block", **names}
    result = eval(code, space)
    if inspect.isawaitable(result):
        await result
    return space
