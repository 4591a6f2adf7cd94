"""(c) An agent that waits for its model most of the time, alone and a hundred at once: what a turn takes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig

from bench.candidates import Candidate, Saver
from bench.graphs import agent_graph
from bench.measures import Measures
from bench.texts import text
from bench.workloads.sizes import Sizes

ALONE_TURNS = 8
CROWD = 100
CROWD_TURNS = 3


async def run(candidate: Candidate, place: str, sizes: Sizes) -> Measures:
    """One thread of 8 turns, then 100 threads of 3 turns that all begin together."""
    measures = Measures()
    async with candidate.open(place) as saver:
        agent = agent_graph(saver)
        await _talk(agent, saver, "warm-up", 1)
        measures.add("agent_ms@1", *await _talk(agent, saver, "alone", sizes.scaled(ALONE_TURNS)))
        crowd = sizes.scaled(CROWD)
        start, used = time.perf_counter(), time.process_time()
        times = await asyncio.gather(*(_talk(agent, saver, f"thread {i}", CROWD_TURNS) for i in range(crowd)))
        took = time.perf_counter() - start
        measures.add("agent_ms@100", took / CROWD_TURNS * 1000)
        measures.add("agent_turn_ms@100", *(one for some in times for one in some))
        measures.add("agent_cpu_ms@100", (time.process_time() - used) / (crowd * CROWD_TURNS) * 1000)
    return measures


async def _talk(agent: Any, saver: Saver | None, thread_id: str, turns: int) -> list[float]:
    """Milliseconds of each turn of a thread; without a saver its caller keeps what was said."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    kept: list[Any] = []
    times = []
    for number in range(turns):
        said = HumanMessage(text(thread_id, number))
        start = time.perf_counter()
        if saver is None:
            kept = (await agent.ainvoke({"messages": [*kept, said]}))["messages"]
        else:
            kept = (await agent.ainvoke({"messages": [said]}, config, durability="sync"))["messages"]
        times.append((time.perf_counter() - start) * 1000)
        assert len(kept) == 6 * (number + 1)
    return times
