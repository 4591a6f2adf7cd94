"""What was found so far, one JSON file for each workload and candidate, so that parts of a run can be joined."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.measures import Measures
from petal.checkpoints.codec.many_models import IN_C

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("langgraph", "langgraph-checkpoint", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres")


@dataclass(frozen=True, slots=True)
class Result:
    """What one candidate did in one workload.

    Attributes:
        run: Which run of the benchmarks it is from: when that began.
        sizes: How much was done, as JSON of `Sizes`.
        machine: Where, as `machine()` tells it.
        repeats: How often.
        measures: Of all repeats together.
        failure: Why there are none.
    """

    workload: str
    candidate: str
    run: str
    sizes: dict[str, Any]
    machine: dict[str, str]
    repeats: int
    measures: Measures
    failure: str = ""

    def write(self) -> None:
        """Keep it, in place of an earlier one."""
        FOLDER.mkdir(exist_ok=True)
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["measures"] = self.measures.as_json()
        (FOLDER / f"{self.workload}-{self.candidate}.json").write_text(json.dumps(data))


class Results:
    """All that is kept, by workload and candidate."""

    def __init__(self, found: dict[tuple[str, str], Result]) -> None:
        self._found = found

    @classmethod
    def read(cls) -> Results:
        """What lies in the folder of results."""
        found = {}
        for file in sorted(FOLDER.glob("*.json")):
            data = json.loads(file.read_text())
            result = Result(**{**data, "measures": Measures.from_json(data["measures"])})
            found[result.workload, result.candidate] = result
        return cls(found)

    def __iter__(self) -> Any:
        return iter(self._found.values())

    def get(self, workload: str, candidate: str) -> Result | None:
        """One result, if it was taken."""
        return self._found.get((workload, candidate))

    def median(self, workload: str, candidate: str, measure: str) -> float | None:
        """The median of a measure, if it was taken."""
        result = self.get(workload, candidate)
        spread = result.measures.spread(measure) if result else None
        return spread.median if spread else None


def now() -> str:
    """The name of a run."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def machine(folder: Path) -> dict[str, str]:
    """What the times depend on: cores, versions, what else runs, and how long `folder`'s disk takes for 4 KB."""
    return {
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{package: version(package) for package in PACKAGES},
        "in_c": "compiled" if IN_C else "left out",
        "load": f"{os.getloadavg()[0]:.1f}",
        "fsync_ms": f"{_sync_ms(folder):.2f}",
    }


def _sync_ms(folder: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(100):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000
