"""`petal threads prune`: deletes what of the past is not to be kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petal.cli.databases import chosen, opened, require_petals
from petal.cli.failures import ExitCode, note
from petal.cli.options import AsJson, Debug, KeptBy, KeptDatabase, at_least_one, optional
from petal.cli.rendering import print_json, print_table, printable
from petal.cli.shortening import thread_or_checkpoint, whole_thread

if TYPE_CHECKING:
    from petal.checkpoints import PetalSaver, Retention, RetentionReport

LANGGRAPHS = "which are not pruned"


def prune_threads(
    threads: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="The threads. Default: all.", show_default=False),
    ] = None,
    keep_last: Annotated[
        int | None, optional("--keep-last", metavar="N", parser=at_least_one, help="Keep so many checkpoints.")
    ] = None,
    max_age: Annotated[
        str | None, optional("--max-age", metavar="AGE", help="Delete older checkpoints, e.g. 30d.")
    ] = None,
    max_idle: Annotated[
        str | None, optional("--max-idle", metavar="AGE", help="Delete whole threads that rested longer, e.g. 90d.")
    ] = None,
    max_bytes: Annotated[
        int | None,
        optional(
            "--max-bytes", metavar="N", parser=at_least_one, help="Delete the oldest until a thread takes no more."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None, optional("--keep", metavar="ID", help="Keep this checkpoint, or all of this thread.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Only list what would go.")] = False,
    db: KeptDatabase = None,
    agent: KeptBy = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Delete old checkpoints, and threads that rest; without a rule, by the agent's own `retention`."""
    rules = {"keep_last": keep_last, "max_age": max_age, "max_idle": max_idle, "max_bytes": max_bytes}
    policy = _policy({name: rule for name, rule in rules.items() if rule is not None}, db, agent)
    with opened(db, agent) as saver:
        ids = [whole_thread(saver, thread) for thread in threads] if threads else None
        ours = require_petals(saver, LANGGRAPHS)
        kept = [_kept(ours, ids, given) for given in keep or []]
        policy = policy.model_copy(update={"keep": (*policy.keep, *kept)})
        report = ours.retain(policy, ids, dry_run=True)
    if not dry_run and report.threads:
        with opened(db, agent, inspect=False) as saver:
            report = require_petals(saver, LANGGRAPHS).retain(policy, ids, dry_run=False)
    if as_json:
        print_json(_report_json(report, dry_run=dry_run))
    else:
        _print_report(report, dry_run=dry_run)
    if report.damaged:
        raise typer.Exit(ExitCode.FAILED)


def _kept(saver: PetalSaver, threads: list[str] | None, given: str) -> str:
    """What `--keep` names: an id that nothing has would let go what is meant to stay."""
    if (found := thread_or_checkpoint(saver, threads, given)) is None:
        raise typer.BadParameter(
            f"there is no thread {given!r}, and no such checkpoint of the threads; nothing was deleted.",
            param_hint="--keep",
        )
    return found


def _policy(rules: dict[str, Any], db: str | None, agent: Path | None) -> Retention:
    """The policy that the options are, or else that of the agent's checkpointer."""
    from petal.checkpoints import Retention

    if rules:
        for name in ("max_age", "max_idle"):
            if name in rules and rules[name].isdecimal():
                rules[name] = int(rules[name])
        return Retention(**rules)
    policy = chosen(db, agent).options.retention
    if agent is not None and policy is None:
        policy = chosen(None, agent).options.retention
    if policy is None:
        raise typer.BadParameter("which checkpoints? Name a rule, such as --keep-last 10 or --max-age 30d.")
    return policy


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
