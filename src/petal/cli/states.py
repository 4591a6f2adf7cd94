"""How the state of a thread looks, as JSON and as text."""

from __future__ import annotations

import json
from typing import Any

from petal.cli.continuations import Continuation
from petal.cli.rendering import clock, conversation, jsonable, message_line, print_fields, printable, questions_json
from petal.cli.snapshots import Snapshot


def point_json(snapshot: Snapshot) -> dict[str, Any]:
    """Which checkpoint it is."""
    return {
        "checkpoint_id": snapshot.id,
        "time": snapshot.time.isoformat(),
        "step": snapshot.step,
        "source": snapshot.source,
    }


def state_json(thread_id: str, snapshot: Snapshot) -> dict[str, Any]:
    """All that a thread holds at a checkpoint."""
    return {
        "thread_id": thread_id,
        **point_json(snapshot),
        "status": snapshot.status,
        "state": snapshot.values,
        "next": snapshot.next,
        "errors": snapshot.errors,
        "interrupts": questions_json(snapshot.interrupts),
    }


def state_fields(thread_id: str, snapshot: Snapshot) -> dict[str, str]:
    """Which checkpoint of which thread it is, and how it stands."""
    step = "" if snapshot.step is None else f", step {snapshot.step}"
    fields = {
        "Thread": thread_id,
        "Checkpoint": f"{snapshot.id}{step}, {clock(snapshot.time)}",
        "Status": {"waiting": "waiting for an answer"}.get(snapshot.status, snapshot.status),
    }
    if snapshot.next:
        fields["Next"] = ", ".join(snapshot.next)
    if snapshot.errors:
        fields["Failed"] = "\n".join(snapshot.errors)
    return fields


def print_values(snapshot: Snapshot) -> None:
    """Print the messages, and what else the state holds."""
    messages = conversation(snapshot.values)
    if messages:
        print()
        for message in messages:
            print(printable(message_line(message)))
    others = {name: value for name, value in snapshot.values.items() if not (messages and name == "messages")}
    if others:
        print()
        print_fields({name: _in_one_line(value) for name, value in others.items()})


def print_rest(snapshot: Snapshot, continuation: Continuation) -> None:
    """Print what the thread asks or has left to do, and the command for it; a run that has it needs none."""
    if snapshot.status == "running":
        return
    if snapshot.interrupts:
        print()
        for asked, command in continuation.answers(snapshot.interrupts):
            print(printable(f"It asks: {asked}\nAnswer:  {command}"))
    elif snapshot.next:
        print(f"\nGo on:   {continuation.command('--resume')}")


def _in_one_line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)
