"""`petal threads`: what a database holds, read without the agent that wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petal.cli.continuations import Continuation
from petal.cli.databases import chosen, opened
from petal.cli.failures import ExitCode, note
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
from petal.cli.shortening import shortened, whole_checkpoint, whole_thread
from petal.cli.snapshots import Snapshot, history
from petal.cli.statuses import threads_with_status, wanted
from petal.errors import CheckpointerConfigurationError

if TYPE_CHECKING:
    from petal.checkpoints import Retention, RetentionReport

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
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only those that are running, interrupted, failed, dead, waiting or done.",
            show_default=False,
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


@app.command("prune")
def prune_threads(
    threads: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="The threads. Default: all.", show_default=False),
    ] = None,
    keep_last: Annotated[
        int | None,
        typer.Option("--keep-last", metavar="N", min=1, help="Keep so many checkpoints.", show_default=False),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option("--max-age", metavar="AGE", help="Delete older checkpoints, e.g. 30d.", show_default=False),
    ] = None,
    max_idle: Annotated[
        str | None,
        typer.Option(
            "--max-idle", metavar="AGE", help="Delete whole threads that rested longer, e.g. 90d.", show_default=False
        ),
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            "--max-bytes",
            metavar="N",
            min=1,
            help="Delete the oldest until a thread takes no more.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="ID", help="Keep this checkpoint, or all of this thread.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Only list what would go.")] = False,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Delete old checkpoints, and threads that rest; without a rule, by the agent's own `retention`."""
    rules = {"keep_last": keep_last, "max_age": max_age, "max_idle": max_idle, "max_bytes": max_bytes}
    policy = _policy({name: rule for name, rule in rules.items() if rule is not None}, keep or [], db, agent)
    with opened(db, agent) as saver:
        ids = [whole_thread(saver, thread) for thread in threads] if threads else None
        report = _retained(saver, policy, ids, dry_run=True)
    if not dry_run and report.threads:
        with opened(db, agent, inspect=False) as saver:
            report = _retained(saver, policy, ids, dry_run=False)
    if as_json:
        print_json(_report_json(report, dry_run=dry_run))
    else:
        _print_report(report, dry_run=dry_run)
    if report.damaged:
        raise typer.Exit(ExitCode.FAILED)


def _policy(rules: dict[str, Any], keep: list[str], db: str | None, agent: Path | None) -> Retention:
    """The policy that the options are, or else that of the agent's checkpointer."""
    from petal.checkpoints import Retention

    if rules:
        for name in ("max_age", "max_idle"):
            if name in rules and rules[name].isdecimal():
                rules[name] = int(rules[name])
        return Retention(**rules, keep=keep)
    policy = chosen(db, agent).options.retention
    if agent is not None and policy is None:
        policy = chosen(None, agent).options.retention
    if policy is None:
        raise typer.BadParameter("which checkpoints? Name a rule, such as --keep-last 10 or --max-age 30d.")
    return policy.model_copy(update={"keep": (*policy.keep, *keep)})


def _retained(saver: Any, policy: Retention, ids: list[str] | None, *, dry_run: bool) -> RetentionReport:
    from petal.checkpoints import PetalSaver

    if not isinstance(saver, PetalSaver):
        raise CheckpointerConfigurationError(
            f"{saver.where} holds LangGraph's tables, which are not pruned; `petal convert` copies it into Petal's."
        )
    return saver.retain(policy, ids, dry_run=dry_run)


def _report_json(report: RetentionReport, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "threads": [
            {
                "thread_id": thread.thread_id,
                "whole": thread.whole,
                "bytes": thread.bytes,
                "checkpoints": [{"checkpoint_ns": ns, "checkpoint_id": id} for ns, id in thread.checkpoints],
            }
            for thread in report.threads
        ],
        "damaged": [{"thread_id": thread_id, "problem": problem} for thread_id, problem in report.damaged],
    }


def _print_report(report: RetentionReport, *, dry_run: bool) -> None:
    if report.threads:
        rows = [
            (str(len(thread.checkpoints)), f"{thread.bytes:,}", "whole" if thread.whole else "", thread.thread_id)
            for thread in report.threads
        ]
        print_table(("CHECKPOINTS", "BYTES", "", "THREAD"), rows)
    what = "1 checkpoint" if report.checkpoints == 1 else f"{report.checkpoints:,} checkpoints"
    print(f"{what} with {report.bytes:,} bytes {'would go' if dry_run else 'deleted'}.")
    for thread_id, problem in report.damaged:
        note(printable(f"thread {thread_id!r} was left: {problem}"))


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
