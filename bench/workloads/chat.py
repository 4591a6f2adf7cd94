"""(a) One chat of many turns: what a turn costs as it grows, what lies on disk, how fast it is read again."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.candidates import Candidate, Saver
from bench.disk import growing_bytes, settled_bytes
from bench.graphs import Chatting, chat_graph
from bench.measures import Measures
from bench.texts import SAID
from bench.workloads.sizes import Sizes

MARKS = (10, 100, 500, 1000)
"""Turns at which the time of a turn is told."""
READ_AT = (500, 1000)
"""Turns at which it is read again, beside the last one."""
WINDOW = 20
"""Turns, up to a mark, whose times are its samples; at most half of those so far."""
HISTORY = 20
READS = 5
POINTS = 50
"""Of a curve."""
THREAD = "a long chat"


async def run(candidate: Candidate, place: str, sizes: Sizes) -> Measures:
    """The whole chat, turn after turn, each saved before the next begins."""
    measures = Measures()
    marks = sorted({mark for mark in MARKS if mark < sizes.turns} | {sizes.turns})
    times: list[float] = []
    cpu: list[float] = []
    grown: list[tuple[float, float]] = []
    end = time.monotonic() + sizes.seconds
    async with candidate.open(place) as saver:
        graph = chat_graph(saver)
        warm_up = Chatting(graph, saver, "warm-up")
        for number in range(3):
            await warm_up.turn(number)
        chat = Chatting(graph, saver, THREAD)
        while len(times) < sizes.turns and time.monotonic() < end:
            said = chat.says(len(times))
            start, used = time.perf_counter(), time.process_time()
            await chat.hears(said)
            times.append((time.perf_counter() - start) * 1000)
            cpu.append((time.process_time() - used) * 1000)
            if len(times) % max(1, sizes.turns // POINTS) == 0 and (size := growing_bytes(candidate, place)):
                grown.append((len(times), size))
            if len(times) in marks:
                window = min(WINDOW, len(times) // 2 or 1)
                measures.add(f"turn_ms@{len(times)}", *times[-window:])
                measures.add(f"turn_cpu_ms@{len(times)}", *cpu[-window:])
            if saver is not None and (len(times) in READ_AT or len(times) == sizes.turns):
                await _read(candidate, place, saver, chat, len(times), measures)
        if len(times) < sizes.turns:
            measures.add(f"turn_ms@{len(times)}", *times[-WINDOW:])
            measures.notes.append(f"stopped after {len(times)} turns, which took {sizes.seconds:g} s")
    measures.series["turn_ms"] = _curve(times)
    measures.series["disk_bytes"] = grown
    return measures


async def _read(candidate: Candidate, place: str, saver: Saver, chat: Chatting, turns: int, measures: Measures) -> None:
    """What it takes to find the chat again, with a saver that has never seen it."""
    said = turns * 2 * SAID
    if (size := settled_bytes(candidate, place)) is not None:
        measures.add(f"disk_bytes@{turns}", size)
        measures.add(f"disk_per_said@{turns}", size / said)
    for _ in range(READS):
        start = time.perf_counter()
        async with _another(candidate, place, saver) as fresh:
            await fresh.aget_tuple({"configurable": {"thread_id": "nobody's"}})
            opened, used = time.perf_counter(), time.process_time()
            head = await fresh.aget_tuple(chat.config)
            done, used = time.perf_counter(), time.process_time() - used
            assert head is not None
            assert len(head.checkpoint["channel_values"]["messages"]) == 2 * turns
            measures.add(f"open_ms@{turns}", (opened - start) * 1000)
            measures.add(f"head_ms@{turns}", (done - opened) * 1000)
            measures.add(f"head_cpu_ms@{turns}", used * 1000)
        async with _another(candidate, place, saver) as fresh:
            graph = chat_graph(fresh)
            await fresh.aget_tuple({"configurable": {"thread_id": "nobody's"}})
            start = time.perf_counter()
            history = [found async for found in graph.aget_state_history(chat.config, limit=HISTORY)]
            measures.add(f"history_ms@{turns}", (time.perf_counter() - start) * 1000)
            assert len(history) == min(HISTORY, 3 * turns)


@asynccontextmanager
async def _another(candidate: Candidate, place: str, saver: Saver) -> AsyncIterator[Saver]:
    """A saver that has nothing at hand; where state goes with its saver, that one."""
    if not candidate.is_durable:
        yield saver
        return
    async with candidate.open(place) as fresh:
        assert fresh is not None
        yield fresh


def _curve(times: list[float]) -> list[tuple[float, Any]]:
    width = max(1, len(times) // POINTS)
    return [
        (first + width / 2, statistics.median(times[first : first + width]))
        for first in range(0, len(times) - width + 1, width)
    ]
