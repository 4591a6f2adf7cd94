"""(b) Many threads at once: turns a second, CPU time of a turn, peak memory."""

from __future__ import annotations

import asyncio
import time

from bench.candidates import Candidate
from bench.graphs import Chatting, chat_graph
from bench.measures import Measures, peak_bytes
from bench.workloads.sizes import Sizes

AT_ONCE = 200
"""Turns that run at the same time."""


async def run_many(candidate: Candidate, place: str, sizes: Sizes) -> Measures:
    """2,000 threads of 3 turns."""
    return await _run(candidate, place, sizes.scaled(2000), 3, sizes.seconds)


async def run_long(candidate: Candidate, place: str, sizes: Sizes) -> Measures:
    """200 threads of 10 turns."""
    return await _run(candidate, place, sizes.scaled(200), 10, sizes.seconds)


async def _run(candidate: Candidate, place: str, threads: int, turns: int, seconds: float) -> Measures:
    measures = Measures()
    room = asyncio.Semaphore(AT_ONCE)
    done = 0

    async with candidate.open(place) as saver:
        graph = chat_graph(saver)
        end = time.monotonic() + seconds

        # Each turn waits for its place, so all threads have their first turn before one has its second: no thread
        # is served from what its last turn left at hand just now.
        async def talk(name: str, turns: int) -> None:
            nonlocal done
            chat = Chatting(graph, saver, name)
            for number in range(turns):
                async with room:
                    if time.monotonic() < end:
                        await chat.turn(number)
                        done += 1

        await asyncio.gather(*(talk(f"warm-up {number}", 1) for number in range(20)))
        done = 0
        start, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(talk(f"thread {number}", turns) for number in range(threads)))
        took, used = time.perf_counter() - start, time.process_time() - used
    if done < threads * turns:
        measures.notes.append(f"stopped after {done} turns of {threads * turns}, which took {seconds:g} s")
    measures.add("turns_per_s", done / took)
    measures.add("cpu_ms_per_turn", used / done * 1000)
    measures.add("peak_bytes", peak_bytes())
    return measures
