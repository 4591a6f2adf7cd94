"""A process for the tests: an agent in memory that was used before the process forked from one that has ended."""

from __future__ import annotations

import asyncio
import operator
import os
import time
import warnings
from typing import Annotated, TypedDict

from petal.core.agent import Agent
from petal.core.factory import AgentFactory


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


async def step(state: Said) -> Said:
    await asyncio.sleep(0.1)
    return {"said": ["done"]}


async def two(agent: Agent) -> list[str]:
    """Two runs on one thread at once."""
    runs = [agent.ainvoke({"said": [name]}, thread_id="t") for name in ("second", "third")]
    return (await asyncio.gather(*runs))[-1]["said"]


def main() -> None:
    ended, end = os.pipe()
    with AgentFactory(Said).add(step).with_checkpointer("memory://").build() as agent:
        if child := os.fork():
            os.close(end)
            os.waitpid(child, 0)
            os.read(ended, 1)
            return
        agent.invoke({"said": ["first"]}, thread_id="t")
        between = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == between:
            time.sleep(0.01)
        print(asyncio.run(two(agent)), flush=True)
        os._exit(0)


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # a Python that advises against it
    main()
