"""(e) A wide state of which little changes: what a step costs, in bytes and milliseconds."""

from __future__ import annotations

import time

from langchain_core.runnables import RunnableConfig

from bench.candidates import Candidate
from bench.disk import settled_bytes
from bench.graphs import wide_graph, wide_input
from bench.measures import Measures
from bench.workloads.sizes import Sizes

STEPS = 200
RUNS = 3


async def run(candidate: Candidate, place: str, sizes: Sizes) -> Measures:
    """A few runs of 200 steps, each on a thread of its own."""
    measures = Measures()
    steps = sizes.scaled(STEPS)
    async with candidate.open(place) as saver:
        graph = wide_graph(saver, steps)
        for number in range(-1, RUNS):  # the first one warms up
            config: RunnableConfig = {"configurable": {"thread_id": f"run {number}"}, "recursion_limit": steps + 5}
            start = time.perf_counter()
            # Without a checkpointer LangGraph warns that there is nothing to be durable.
            result = await graph.ainvoke(wide_input(), config, **({"durability": "sync"} if saver else {}))
            if number >= 0:
                measures.add("step_ms", (time.perf_counter() - start) / steps * 1000)
            assert result["channel_0"].startswith(f"{steps} ")
        if (size := settled_bytes(candidate, place)) is not None:
            measures.add("step_bytes", size / (steps * (RUNS + 1)))
    return measures
