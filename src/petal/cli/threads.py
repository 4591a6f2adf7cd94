"""`petal threads`: what a database holds, read without the agent that wrote it."""

from __future__ import annotations

from typing import Annotated

import typer

from petal.cli import branches, history, prune
from petal.cli.continuations import Continuation
from petal.cli.databases import opened
from petal.cli.options import AsJson, Debug, KeptBy, KeptDatabase, ThreadId, at_least_one, optional
from petal.cli.rendering import clock, print_fields, print_json, print_table
from petal.cli.shortening import whole_checkpoint, whole_thread
from petal.cli.snapshots import looked_at
from petal.cli.states import print_rest, print_values, state_fields, state_json
from petal.cli.statuses import threads_with_status, wanted

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="List, read and change the threads of a database."
)


@app.command("list")
def list_threads(
    db: KeptDatabase = None,
    agent: KeptBy = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", parser=at_least_one, help="Threads at most.")
    ] = 50,
    status: Annotated[
        str | None,
        optional(
            "--status",
            metavar="STATUS",
            help="Only those that are running, interrupted, failed, dead, waiting or done.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the threads, the latest used first, and how each stands."""
    status = wanted(status)
    with opened(db, agent) as saver:
        threads = threads_with_status(saver, status, limit)
        where = saver.where
    if as_json:
        print_json(
            [
                {
                    "thread_id": thread.thread_id,
                    "checkpoints": thread.checkpoints,
                    "updated": thread.updated and thread.updated.isoformat(),
                    "checkpoint_id": thread.checkpoint_id,
                    "status": stands,
                }
                for thread, stands in threads
            ]
        )
    elif not threads:
        print(f"{where} holds no threads." if status is None else f"{where} holds no thread that is {status}.")
    else:
        rows = [
            (clock(thread.updated), str(thread.checkpoints), stands, thread.thread_id) for thread, stands in threads
        ]
        print_table(("UPDATED", "CHECKPOINTS", "STATUS", "THREAD"), rows)


@app.command("show")
def show_thread(
    thread: ThreadId,
    checkpoint: Annotated[
        str | None,
        optional("--checkpoint", "-c", metavar="ID", help="An earlier state, by its checkpoint or a branch's name."),
    ] = None,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what a thread holds: its messages, its state, what comes next, what it asks."""
    with opened(db, agent) as saver:
        thread_id = whole_thread(saver, thread)
        at = None if checkpoint is None else whole_checkpoint(saver, thread_id, checkpoint)
        snapshot = looked_at(saver, thread_id, at)
    if as_json:
        print_json(state_json(thread_id, snapshot))
        return
    print_fields(state_fields(thread_id, snapshot))
    print_values(snapshot)
    print_rest(snapshot, Continuation(agent or "AGENT.yaml", thread_id, db))


app.command("history")(history.show_history)
app.command("branches")(branches.show_branches)
app.command("rewind")(branches.rewind_thread)
app.command("fork")(branches.fork_thread)
app.command("prune")(prune.prune_threads)
