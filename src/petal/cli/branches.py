"""`petal threads branches`, `rewind` and `fork`: names for states of the past, and ways back to them."""

from __future__ import annotations

import asyncio
import shlex
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petal.cli.continuations import Continuation
from petal.cli.databases import opened, repeated, require_petals
from petal.cli.failures import ExitCode, note
from petal.cli.options import AsJson, Debug, KeptBy, KeptDatabase, ThreadId, at_least_one, optional
from petal.cli.rendering import clock, conversation, message_line, print_fields, print_json, print_table, printable
from petal.cli.shortening import shortened, whole_checkpoint, whole_thread
from petal.cli.snapshots import looked_at
from petal.cli.states import print_rest, state_fields, state_json
from petal.errors import ThreadBusyError, TooFewTurnsError

if TYPE_CHECKING:
    from petal.checkpoints import PetalSaver
    from petal.checkpoints.branches import Branch
    from petal.core.branching import Left

LANGGRAPHS = "whose values a rewind would have to write anew without their types"


def show_branches(
    thread: ThreadId,
    name: Annotated[str | None, optional("--name", metavar="NAME", help="Give a checkpoint this name.")] = None,
    at: Annotated[
        str | None,
        optional("--at", metavar="PLACE", help="The checkpoint that is named, or another name of it. Default: latest."),
    ] = None,
    drop: Annotated[
        str | None, optional("--drop", metavar="NAME", help="Take this name away; its checkpoints stay.")
    ] = None,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the named branches of a thread, or give or drop a name.

    A name stands for its checkpoint in every command that takes one, and keeps it from a prune.
    """
    if name is not None and drop is not None:
        raise typer.BadParameter(
            "--name gives a name and --drop takes one away; keep one of them.", param_hint="--drop"
        )
    if at is not None and name is None:
        raise typer.BadParameter("it names the checkpoint that gets a name; add --name NAME.", param_hint="--at")
    with opened(db, agent) as saver:
        thread_id = whole_thread(saver, thread)
        place = _place(saver, thread_id, at) if name is not None else None
    if name is not None or drop is not None:
        with opened(db, agent, inspect=False) as saver:
            asyncio.run(_renamed(saver, thread_id, name, place, drop))
    with opened(db, agent) as saver:
        from petal.checkpoints.lines import abranches

        found = asyncio.run(abranches(saver, thread_id))
    if as_json:
        print_json([{**asdict(branch), "created": branch.created.isoformat()} for branch in found])
    elif name is not None:
        print(printable(f"{name} now stands for checkpoint {place} of thread {thread_id}."))
    elif drop is not None:
        print(printable(f"{drop} is dropped; its checkpoints stay until a prune takes them."))
    elif not found:
        command = shlex.join(["petal", "threads", "branches", thread_id, "--name", "NAME", *repeated(db, agent)])
        print(printable(f"No checkpoint of thread {thread_id} has a name; name the latest with: {command}"))
    else:
        _print_branches(found)


def rewind_thread(
    thread: ThreadId,
    turns: Annotated[
        int | None,
        optional("--turns", metavar="N", parser=at_least_one, help="How many inputs to take back. Default: 1."),
    ] = None,
    to: Annotated[
        str | None,
        optional("--to", metavar="PLACE", help="The checkpoint or the branch to go back to, instead of --turns."),
    ] = None,
    keep_as: Annotated[
        str | None,
        optional("--keep-as", metavar="NAME", help="The name of what is left behind. Default: before-rewind-1 etc."),
    ] = None,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make an earlier state of a thread its latest one; nothing is deleted.

    What was the latest state gets a name, by which it can be gone back to. A run that goes on meanwhile is left alone.
    """
    if turns is not None and to is not None:
        raise typer.BadParameter("--turns counts back and --to names a place; keep one of them.", param_hint="--to")
    with opened(db, agent) as saver:
        require_petals(saver, LANGGRAPHS)
        thread_id = whole_thread(saver, thread)
        target = None if to is None else whole_checkpoint(saver, thread_id, to)
    with opened(db, agent, inspect=False) as saver:
        left = _rewound(require_petals(saver, LANGGRAPHS), thread_id, turns or 1, target, keep_as)
    with opened(db, agent) as saver:
        snapshot = looked_at(saver, thread_id)
    if as_json:
        print_json({**state_json(thread_id, snapshot), "kept_as": left.name, "kept_checkpoint_id": left.checkpoint_id})
        return
    fields = state_fields(thread_id, snapshot)
    if messages := conversation(snapshot.values):
        fields["Last said"] = message_line(messages[-1])
    back = shlex.join(["petal", "threads", "rewind", thread_id, "--to", left.name, *repeated(db, agent)])
    print_fields({**fields, "Kept as": left.name, "Go back": back})
    print_rest(snapshot, Continuation(agent or "AGENT.yaml", thread_id, db))


def fork_thread(
    thread: ThreadId,
    at: Annotated[
        str | None,
        optional("--at", metavar="PLACE", help="Where to fork: a checkpoint or a branch. Default: the latest state."),
    ] = None,
    to: Annotated[
        str | None, optional("--to", metavar="ID", help="The new thread. Default: a new id, which is told.")
    ] = None,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make a new thread that begins as this one was; this one stays as it is."""
    if to == "":
        raise typer.BadParameter("an id has at least one character.", param_hint="--to")
    target = to or str(uuid.uuid4())
    with opened(db, agent) as saver:
        thread_id = whole_thread(saver, thread)
        place = _place(saver, thread_id, at)
    with opened(db, agent, inspect=False) as saver:
        from petal.core.branching import forked

        asyncio.run(forked(saver, thread_id, place, target))
    with opened(db, agent) as saver:
        snapshot = looked_at(saver, target)
    if as_json:
        print_json({**state_json(target, snapshot), "forked_from": {"thread_id": thread_id, "checkpoint_id": place}})
        return
    continuation = Continuation(agent or "AGENT.yaml", target, db)
    print_fields({**state_fields(target, snapshot), "Forked from": f"thread {thread_id}"})
    print_rest(snapshot, continuation)
    if not (snapshot.interrupts or snapshot.next):
        print(f"\nGo on:   {continuation.command('--message', 'TEXT')}")


def _place(saver: Any, thread_id: str, given: str | None) -> str:
    """The checkpoint that is meant; the newest if none is named."""
    return looked_at(saver, thread_id).id if given is None else whole_checkpoint(saver, thread_id, given)


async def _renamed(saver: Any, thread_id: str, name: str | None, place: str | None, drop: str | None) -> None:
    from petal.checkpoints.branches import adrop, aname

    if name is not None and place is not None:
        await aname(saver, {"configurable": {"thread_id": thread_id}}, name, place)
    if drop is not None:
        await adrop(saver, thread_id, drop)


def _rewound(saver: PetalSaver, thread_id: str, turns: int, target: str | None, keep_as: str | None) -> Left:
    """Rewind it, unless a run has it."""
    from petal.core.branching import rewound
    from petal.core.turns import turn

    async def rewind() -> Left:
        async with turn(saver, {"configurable": {"thread_id": thread_id}}, "reject", 0) as has:
            return await rewound(saver, has.config, turns, target, keep_as)

    try:
        return asyncio.run(rewind())
    except ThreadBusyError as error:
        note(f"a run has thread {thread_id!r} now, and nothing was changed; rewind it when that run has ended.")
        raise typer.Exit(ExitCode.FAILED) from error
    except TooFewTurnsError as error:
        raise typer.BadParameter(
            f"of thread {thread_id!r} {_counted(error.most, 'turn')} can be taken back; name another place with --to, "
            "or begin a new thread.",
            param_hint="--turns",
        ) from error


def _print_branches(found: list[Branch]) -> None:
    ids = shortened([branch.checkpoint_id for branch in found])
    rows = [
        (branch.name, id, clock(branch.created), branch.why, _since(branch))
        for id, branch in zip(ids, found, strict=True)
    ]
    print_table(("NAME", "CHECKPOINT", "CREATED", "WHY", "SINCE IT PARTED"), rows)


def _since(branch: Branch) -> str:
    if branch.is_head:
        return "is the latest state"
    if branch.parted == branch.checkpoint_id:
        return "led to the latest state"
    return f"{_counted(branch.turns, 'turn')}, {_counted(branch.steps, 'step')}"


def _counted(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
