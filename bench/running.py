"""Runs workloads with candidates, in turns, each in a process of its own and on an empty place."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from bench.candidates import Candidate
from bench.measures import Measures
from bench.results import FOLDER, Result, machine, now
from bench.workloads import Sizes, Workload
from petal.testing.postgres import create_database, drop_database, postgres_server

ROOT = Path(__file__).parents[1]
GRACE = 120.0
"""Seconds beyond its own limit after which a process is ended."""


class Places(ExitStack):
    """Empty places for state: files in a folder on a real disk, databases of a server that forces to the disk."""

    @cached_property
    def folder(self) -> Path:
        """Where the files go: beside the results, since a folder for temporary files may lie in memory."""
        FOLDER.mkdir(exist_ok=True)
        return Path(self.enter_context(tempfile.TemporaryDirectory(dir=FOLDER, prefix="places-")))

    @cached_property
    def server(self) -> str:
        """The URL of a PostgreSQL server, which is as careful as one is by default.

        It looks for dead rows each second instead of each minute, since a chat here takes seconds instead of hours.
        """
        settings = {"fsync": True, "full_page_writes": True, "synchronous_commit": True, "autovacuum_naptime": 1}
        return self.enter_context(postgres_server(**settings)).url

    @contextmanager
    def fresh(self, candidate: Candidate) -> Iterator[str]:
        """A place that is removed afterwards."""
        match candidate.storage:
            case "sqlite":
                with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                    yield str(Path(folder) / "bench.db")
            case "postgres":
                url = create_database(self.server)
                try:
                    yield url
                finally:
                    drop_database(self.server, url)
            case _:
                yield ""


def run_all(workloads: Sequence[Workload], candidates: Sequence[Candidate], sizes: Sizes, repeats: int) -> None:
    """Runs everything and keeps what was found; a failure is a result too.

    Args:
        workloads: One after the other.
        candidates: In turns, so that what the machine does meanwhile hits all of them.
        sizes: How much is done.
        repeats: At most so many times each.
    """
    run = now()
    with Places() as places:
        here = machine(places.folder)
        for workload in workloads:
            chosen = [candidate for candidate in candidates if candidate.name not in workload.without]
            found: dict[str, Measures] = {}
            failed: set[str] = set()
            counts = dict.fromkeys((candidate.name for candidate in chosen), 0)
            slow: set[str] = set()
            for repeat in range(min(repeats, workload.repeats)):
                for candidate in chosen:
                    name = candidate.name
                    if name in slow or name in failed:
                        continue
                    start = time.monotonic()
                    measures, failure = _in_child(workload, candidate, places, sizes)
                    took = time.monotonic() - start
                    print(f"{workload.name} {name:15} {repeat + 1}: {failure or f'{took:.0f} s'}", flush=True)
                    if failure:
                        failed.add(name)
                    else:
                        counts[name] += 1
                    if took > workload.patience:
                        slow.add(name)
                    found[name] = found[name].joined(measures) if name in found else measures
                    sized = asdict(sizes)
                    Result(workload.name, name, run, sized, here, counts[name], found[name], failure).write()


def _in_child(workload: Workload, candidate: Candidate, places: Places, sizes: Sizes) -> tuple[Measures, str]:
    """What a run found, or why it failed."""
    command = [sys.executable, "-m", "bench.child", workload.name, candidate.name]
    with places.fresh(candidate) as place:
        try:
            done = subprocess.run(
                [*command, place, json.dumps(asdict(sizes))],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=sizes.seconds + GRACE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Measures(), f"not done after {sizes.seconds + GRACE:g} s"
    if done.returncode != 0:
        return Measures(), (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return Measures.from_json(json.loads(done.stdout.splitlines()[-1])), ""
