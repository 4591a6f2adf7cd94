"""`petal threads`: what a database holds, read without the agent that wrote it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from petal.cli.continuations import Continuation
from petal.cli.databases import opened
from petal.cli.options import AsJson, Debug, KeptBy, KeptDatabase
from petal.cli.rendering import (
    clock,
    conversation,
    jsonable,
    message_line,
    print_fields,
    print_json,
    print_table,
    printable,
    questions_json,
)
from petal.cli.shortening import all_threads, shortened, whole_checkpoint, whole_thread
from petal.cli.snapshots import Snapshot, history

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="List and read the threads of a database.")

ThreadId = Annotated[
    str,
    typer.Argument(metavar="ID", help="The thread; its first letters do while they are unique.", show_default=False),
]


@app.command("list")
def list_threads(
    db: KeptDatabase = None,
    agent: KeptBy = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Threads at most.")] = 50,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the threads, the latest used first."""
    with opened(db, agent) as saver:
        threads = list(all_threads(saver, limit))
        where = saver.where
    if as_json:
        print_json(
            [
                {
                    "thread_id": thread.thread_id,
                    "checkpoints": thread.checkpoints,
                    "updated": thread.updated and thread.updated.isoformat(),
                    "checkpoint_id": thread.checkpoint_id,
                }
                for thread in threads
            ]
        )
    elif not threads:
        print(f"{where} holds no threads.")
    else:
        rows = [(clock(thread.updated), str(thread.checkpoints), thread.thread_id) for thread in threads]
        print_table(("UPDATED", "CHECKPOINTS", "THREAD"), rows)


@app.command("show")
def show_thread(
    thread: ThreadId,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", "-c", metavar="ID", help="An earlier state, by its checkpoint.", show_default=False
        ),
    ] = None,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what a thread holds: its messages, its state, what comes next, what it asks."""
    with opened(db, agent) as saver:
        thread_id = whole_thread(saver, thread)
        named = {} if checkpoint is None else {"checkpoint_id": whole_checkpoint(saver, thread_id, checkpoint)}
        kept = saver.get_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **named}})
        assert kept is not None, "its id was just found"
        snapshot = Snapshot(kept)
    if as_json:
        print_json(_as_json(thread_id, snapshot))
    else:
        _print(thread_id, snapshot, Continuation(agent or "AGENT.yaml", thread_id, db))


@app.command("history")
def show_history(
    thread: ThreadId,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Checkpoints at most.")] = 50,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List a thread's checkpoints, the newest first, and what led to each."""
    with opened(db, agent) as saver:
        found = list(history(saver, whole_thread(saver, thread), limit))
    if as_json:
        print_json([{**_point(snapshot), "did": snapshot.did(parent)} for snapshot, parent in found])
        return
    ids = shortened([snapshot.id for snapshot, _ in found])
    rows = [
        (
            id,
            clock(snapshot.time),
            "" if snapshot.step is None else str(snapshot.step),
            snapshot.source,
            snapshot.did(parent),
        )
        for id, (snapshot, parent) in zip(ids, found, strict=True)
    ]
    print_table(("CHECKPOINT", "TIME", "STEP", "SOURCE", "WHAT IT DID"), rows)


def _point(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "checkpoint_id": snapshot.id,
        "time": snapshot.time.isoformat(),
        "step": snapshot.step,
        "source": snapshot.source,
    }


def _as_json(thread_id: str, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "thread_id": thread_id,
        **_point(snapshot),
        "status": snapshot.status,
        "state": snapshot.values,
        "next": snapshot.next,
        "errors": snapshot.errors,
        "interrupts": questions_json(snapshot.interrupts),
    }


def _print(thread_id: str, snapshot: Snapshot, continuation: Continuation) -> None:
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
    print_fields(fields)
    messages = conversation(snapshot.values)
    if messages:
        print()
        for message in messages:
            print(printable(message_line(message)))
    others = {name: value for name, value in snapshot.values.items() if not (messages and name == "messages")}
    if others:
        print()
        print_fields({name: _in_one_line(value) for name, value in others.items()})
    if snapshot.interrupts:
        print()
        for asked, command in continuation.answers(snapshot.interrupts):
            print(printable(f"It asks: {asked}\nAnswer:  {command}"))
    elif snapshot.next:
        print(f"\nGo on:   {continuation.command('--resume')}")


def _in_one_line(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)
