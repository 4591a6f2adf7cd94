"""(d) Several processes on one database: turns a second of all together, and what went wrong."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from bench.candidates import CANDIDATES, Candidate
from bench.graphs import Chatting, chat_graph
from bench.measures import Measures
from bench.workloads.sizes import Sizes

ON_SQLITE = 8
ON_POSTGRES = 4
THREADS = 4
"""Threads of each process, which run at once."""
TURNS = 15
"""Turns of each thread."""
START_SECONDS = 60

Outcome = tuple[float, float, int, Counter[str]]
"""When a process began and ended, the turns that it finished, and the errors of the others."""


async def run(candidate: Candidate, place: str, sizes: Sizes) -> Measures:
    """8 processes on SQLite, 4 on PostgreSQL; the floor, each process for itself, as both."""
    measures = Measures()
    counts = {"sqlite": (ON_SQLITE,), "postgres": (ON_POSTGRES,)}.get(candidate.storage, (ON_SQLITE, ON_POSTGRES))
    async with candidate.open(place) as saver:  # the tables are there before the processes begin
        await Chatting(chat_graph(saver), saver, "before").turn(0)
    for count in counts:
        outcomes = await asyncio.to_thread(_together, candidate, place, count, sizes)
        took = max(end for _, end, _, _ in outcomes) - min(start for start, _, _, _ in outcomes)
        errors = sum((errors for _, _, _, errors in outcomes), Counter[str]())
        measures.add(f"turns_per_s@{count}", sum(done for _, _, done, _ in outcomes) / took)
        measures.add(f"errors@{count}", errors.total())
        measures.notes += [f"error in {number} turns: {what}" for what, number in errors.most_common(3)]
    return measures


def _together(candidate: Candidate, place: str, count: int, sizes: Sizes) -> list[Outcome]:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(count), context.Queue()
    processes = [
        context.Process(
            target=_work,
            args=(candidate.name, place, number, sizes.scaled(TURNS), barrier, answers),
            daemon=True,  # so that none is left behind if one of them fails before its answer
        )
        for number in range(count)
    ]
    for process in processes:
        process.start()
    outcomes = [answers.get(timeout=sizes.seconds) for _ in processes]
    for process in processes:
        process.join()
    return outcomes


def _work(name: str, place: str, number: int, turns: int, barrier: Barrier, answers: Queue[Outcome]) -> None:
    answers.put(asyncio.run(_talk_all(CANDIDATES[name], place, number, turns, barrier)))


async def _talk_all(candidate: Candidate, place: str, number: int, turns: int, barrier: Barrier) -> Outcome:
    errors: Counter[str] = Counter()
    done = 0

    async with candidate.open(place) as saver:
        graph = chat_graph(saver)

        async def talk(thread_id: str, turns: int) -> None:
            nonlocal done
            chat = Chatting(graph, saver, thread_id)
            for turn in range(turns):
                try:
                    await chat.turn(turn)
                except Exception as error:  # whatever it is, it is what is counted here
                    errors[f"{type(error).__name__}: {error}"[:120]] += 1
                else:
                    done += 1

        await talk(f"warm-up {number}", 1)
        done = 0
        errors.clear()
        barrier.wait(START_SECONDS)
        start = time.monotonic()
        await asyncio.gather(*(talk(f"process {number} thread {i}", turns) for i in range(THREADS)))
        return start, time.monotonic(), done, errors
