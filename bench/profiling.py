"""Where the time of one turn goes: the saver's methods by the clock, then all functions under the profiler."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import io
import pstats
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from bench.candidates import Candidate
from bench.graphs import Chatting, chat_graph
from bench.texts import text

METHODS = ("aget_tuple", "aput", "aput_writes")
TURNS = 60
CROWD = 200
CROWD_TURNS = 5
ROWS = 45


async def profile_chat(candidate: Candidate, place: str, turns: int) -> str:
    """A report on the turns of a chat after the first `turns`."""
    async with candidate.open(place) as saver:
        if saver is None:
            raise ValueError("without a checkpointer there is nothing to profile")
        chat = Chatting(chat_graph(saver), saver, "profiled")
        for number in range(turns):
            await chat.turn(number)
        lines = [f"{candidate.title}, {TURNS} turns after turn {turns}", ""]
        lines += await _clocked(chat, type(saver), turns)
    # The profiler sees only threads that begin after it, so it gets a saver of its own; what lives in memory went
    # with the other one.
    if candidate.is_durable:
        profiles = _profile_new_threads()
        async with candidate.open(place) as fresh:
            assert fresh is not None
            chat = chat.on(chat_graph(fresh), fresh)
            for number in range(TURNS):
                await chat.turn(turns + TURNS + number)
        lines += _stopped(profiles, TURNS)
    return "\n".join(lines)


async def profile_crowd(candidate: Candidate, place: str) -> str:
    """A report on the first turns of many threads at once."""
    text("", 0)  # makes what all texts are taken from
    profiles = _profile_new_threads()
    async with candidate.open(place) as saver:
        graph = chat_graph(saver)

        async def talk(thread_id: str) -> None:
            chat = Chatting(graph, saver, thread_id)
            for number in range(CROWD_TURNS):
                await chat.turn(number)

        await asyncio.gather(*(talk(f"thread {number}") for number in range(CROWD)))
    return "\n".join([f"{candidate.title}, {CROWD} threads at once", *_stopped(profiles, CROWD * CROWD_TURNS)])


async def _clocked(chat: Chatting, kind: type[Any], turns: int) -> list[str]:
    """The median time of a turn, and of it what is spent in each method of the saver."""
    spent: dict[str, list[float]] = defaultdict(list)
    calls: dict[str, int] = defaultdict(int)
    total: dict[str, float] = defaultdict(float)

    def clocked(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return await method(*args, **kwargs)
            finally:
                total[name] += time.perf_counter() - start
                calls[name] += 1

        return call

    before = {name: getattr(kind, name) for name in METHODS}
    for name, method in before.items():
        setattr(kind, name, clocked(name, method))
    gc.collect()
    try:
        for number in range(TURNS):
            total.clear()
            said = chat.says(turns + number)
            start, used = time.perf_counter(), time.process_time()
            await chat.hears(said)
            spent["turn"].append(time.perf_counter() - start)
            spent["CPU"].append(time.process_time() - used)
            for name in METHODS:
                spent[name].append(total[name])
    finally:
        for name, method in before.items():
            setattr(kind, name, method)
    lines = ["Medians of a turn, by the clock: waiting for the disk and for whatever else runs is part of them"]
    for name, times in spent.items():
        often = f" in {calls[name] / TURNS:.1f} calls" if name in calls else ""
        lines.append(f"{name:12} {statistics.median(times) * 1e6:8.0f} µs{often}")
    return lines


def _profile_new_threads() -> dict[str, cProfile.Profile]:
    """Profiles of this thread and of each that begins from now on."""
    profiles: dict[str, cProfile.Profile] = {}

    def begin(*_: Any) -> None:
        name = threading.current_thread().name
        profiles[name] = cProfile.Profile()
        profiles[name].enable()

    threading.setprofile(begin)
    profiles[threading.current_thread().name] = mine = cProfile.Profile()
    mine.enable()
    return profiles


def _stopped(profiles: dict[str, cProfile.Profile], turns: int) -> list[str]:
    """The tables of the profiles, those of a pool's threads together."""
    threading.setprofile(None)
    pools: dict[str, pstats.Stats] = {}
    for which, one in profiles.items():
        one.disable()
        pool = which.rpartition("_")[0] or which
        if pool in pools:
            pools[pool].add(one)
        else:
            pools[pool] = pstats.Stats(one, stream=io.StringIO())
    lines = []
    for pool, stats in pools.items():
        lines += ["", f"-- thread {pool}, waits for other threads among it", *_table(stats, turns)]
    return lines


def _table(stats: pstats.Stats, turns: int) -> list[str]:
    """The functions of most time of their own: µs a turn of their own, and with what they call."""
    found = stats.stats  # type: ignore[attr-defined]
    rows = sorted(found.items(), key=lambda item: -item[1][2])[:ROWS]
    lines = [f"{'own µs':>9} {'all µs':>9} {'calls':>8}  function, per turn"]
    for (file, line, name), (_, calls, own, cumulative, _) in rows:
        where = "/".join(file.split("/")[-3:]) + f":{line}" if line else ""
        per_turn = own / turns * 1e6, cumulative / turns * 1e6, calls / turns
        lines.append(f"{per_turn[0]:9.0f} {per_turn[1]:9.0f} {per_turn[2]:8.1f}  {name} {where}")
    return lines
