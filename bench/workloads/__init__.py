"""The workloads, each a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bench.candidates import Candidate
from bench.measures import Measures
from bench.workloads import agent, chat, crowd, processes, wide
from bench.workloads.sizes import Sizes

__all__ = ["WORKLOADS", "Sizes", "Workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """Something to do with a candidate, in a process of its own.

    Attributes:
        name: What `--only` calls it; its first letter is enough.
        title: What the report calls it.
        run: Does it once, on an empty place.
        without: Candidates that it makes no sense for.
        repeats: How often it is done, if that does not take long.
        patience: Seconds; what took longer is not repeated.
    """

    name: str
    title: str
    run: Callable[[Candidate, str, Sizes], Coroutine[Any, Any, Measures]]
    without: frozenset[str] = frozenset()
    repeats: int = 3
    patience: float = 20.0


_LEAST = frozenset({"least-sqlite", "least-postgres"})
"""What can find nothing again; it tells what many threads at once could be."""
_ALONE = frozenset({"none", "lg-memory", "petal-memory"})
"""What several processes cannot share; the floor stays, each process with its own, as what they can do at most."""

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("a", "One long chat", chat.run, without=_LEAST),
        Workload("b1", "2,000 threads of 3 turns at once", crowd.run_many),
        Workload("b2", "200 threads of 10 turns at once", crowd.run_long),
        Workload("c", "A ReAct agent whose model takes 300 ms", agent.run),
        Workload("d", "Several processes on one database", processes.run, without=_ALONE | _LEAST, repeats=2),
        Workload("e", "20 channels of which one changes", wide.run, without=_LEAST),
    )
}
