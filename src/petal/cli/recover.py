"""`petal recover`: goes on with the runs that died."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petal.cli.check import kept_by
from petal.cli.failures import ExitCode, leave_at_once, note
from petal.cli.options import AgentFile, AsJson, Database, Debug, at_least_one, optional
from petal.cli.rendering import clock, print_json, print_table, printable

if TYPE_CHECKING:
    from petal.core.agent import Agent
    from petal.core.recovery import IncompleteRun, Recovery

TOLD = {
    "done": "done",
    "waiting": "waiting for an answer",
    "failed": "died again",
    "dead": "given up",
    "held": "passed over: another run has it",
    "whole": "passed over: another run finished it",
}


def recover(
    agent: AgentFile,
    attempts: Annotated[
        int,
        typer.Option(
            "--attempts", metavar="N", parser=at_least_one, help="Go on with a run so often at most; then give it up."
        ),
    ] = 3,
    thread: Annotated[
        str | None, optional("--thread", "-t", metavar="ID", help="Only this thread. Default: all.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", metavar="", help="Also go on with those that were given up.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Only list them.")] = False,
    db: Database = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Go on with each run that died, of an error or with its process.

    Several machines may do so at once: a thread that one of them has is passed over by the others.
    """
    from petal.core.factory import AgentFactory

    factory = AgentFactory.from_yaml(agent)
    with factory.with_checkpointer(kept_by(factory, agent, db)).build() as built:
        if thread is not None:
            thread = _whole(built, thread)
        if dry_run:
            _list([run for run in built.incomplete() if thread in (None, run.thread_id)], as_json=as_json)
            return
        last: dict[str, Recovery] = {}
        try:
            for told in built.recover(attempts, thread_id=thread, again=again):
                last[told.thread_id] = told
                print(json.dumps(asdict(told)) if as_json else printable(_line(told)), flush=True)
        except KeyboardInterrupt:
            note("stopped; the next call goes on, and the attempt that was under way does not count")
            leave_at_once(ExitCode.STOPPED)
    if not (last or as_json):
        print("No run died.")
    if any(told.outcome in ("failed", "dead") for told in last.values()):
        raise typer.Exit(ExitCode.FAILED)


def _whole(agent: Agent, given: str) -> str:
    from petal.cli.shortening import whole_thread

    saver: Any = agent.checkpointer
    return whole_thread(saver, given)


def _line(told: Recovery) -> str:
    count = f" (attempt {told.attempts})" if told.attempts else ""
    why = f": {told.error}" if told.error else ""
    return f"{told.thread_id}: {TOLD[told.outcome]}{count}{why}"


def _list(runs: list[IncompleteRun], *, as_json: bool) -> None:
    if as_json:
        print_json([{**asdict(run), "since": run.since and run.since.isoformat()} for run in runs])
    elif not runs:
        print("No run died.")
    else:
        rows = [(clock(run.since), run.status, str(run.attempts), run.thread_id, run.error or "") for run in runs]
        print_table(("SINCE", "STATUS", "ATTEMPTS", "THREAD", "ERROR"), rows)
