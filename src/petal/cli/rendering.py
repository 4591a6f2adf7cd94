"""How things look: JSON for programs, text and tables for people."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NO_NUMBERS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_SPEAKERS = {"human": "You", "ai": "Agent", "system": "System"}


def jsonable(value: Any) -> Any:
    """Any value of a state as what JSON can hold; messages as their type, content and what else is set."""
    from langchain_core.messages import BaseMessage
    from pydantic_core import to_jsonable_python

    from petal.checkpoints.codec import RawValue

    match value:
        case None | bool() | int() | str() if type(value) in (type(None), bool, int, str):
            return value
        case BaseMessage():
            fields = value.model_dump()
            kept = {
                name: field
                for name, field in fields.items()
                if name != "type" and field not in (None, "", [], {}, False)
            }
            return {
                "type": value.type,
                "content": jsonable(value.content),
                **jsonable({**kept, "content": value.content}),
            }
        case RawValue():
            return jsonable(value.data)
        case float():
            # JSON has no other numbers.
            return float(value) if math.isfinite(value) else _NO_NUMBERS[str(float(value))]
        case Mapping():
            return {key if isinstance(key, str) else str(jsonable(key)): jsonable(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(item) for item in value]
        case _:
            plain = to_jsonable_python(value, bytes_mode="base64", fallback=repr)
            return jsonable(plain) if isinstance(plain, dict | list) else plain


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print one JSON value, letters beyond ASCII as they are where the terminal has them."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(jsonable(value), ensure_ascii=plain, indent=indent), flush=True)


def printable(text: str, stream: TextIO | None = None) -> str:
    """Text without the characters that would steer a terminal; whole where it goes to a file or a pipe."""
    target = stream or sys.stdout
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) if target.isatty() else text


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: as wide as the terminal, and where there is none, never broken."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns[:-1]:
        table.add_column(name, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one a line, the values under each other."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        first, *others = printable(value).splitlines() or [""]
        print(f"{name:<{width}}  {first}".rstrip())
        for line in others:
            print(f"{'':<{width}}  {line}")


def message_line(message: Any) -> str:
    """A message as one speaker and what it says, or the tools it asks for."""
    if message.type == "tool":
        speaker = f"Tool {message.name}" if message.name else "Tool"
    else:
        speaker = _SPEAKERS.get(message.type, message.type.capitalize())
    calls = [
        f"calls {call['name']}({json.dumps(jsonable(call['args']), ensure_ascii=False)})"
        for call in getattr(message, "tool_calls", [])
    ]
    return "\n".join(f"{speaker}: {said}" for said in [*([message.text] if message.text else []), *calls])


def conversation(values: Any) -> list[Any]:
    """The messages of a state's values, if it holds a conversation."""
    from langchain_core.messages import BaseMessage

    messages = values.get("messages") if isinstance(values, Mapping) else None
    return [message for message in messages if isinstance(message, BaseMessage)] if isinstance(messages, list) else []


def last_words(values: Any) -> str | None:
    """What the agent said last, if it said anything."""
    said = [message.text for message in conversation(values) if message.type == "ai" and message.text]
    return said[-1] if said else None


def question(interrupt: Any) -> str:
    """What an interrupt asks, in words where it has some."""
    value = interrupt.value
    if isinstance(value, Mapping) and isinstance(value.get("question"), str):
        return str(value["question"])
    return value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)


def questions_json(interrupts: Iterable[Any]) -> list[dict[str, Any]]:
    """Open questions, each with the id that an answer names."""
    return [{"id": asked.id, "question": question(asked), "value": asked.value} for asked in interrupts]


def clock(when: datetime | None) -> str:
    """A time as people here read it, to the second."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S") if when is not None else "unknown"
