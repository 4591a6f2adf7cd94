"""A process for the tests: an agent that is built before the processes fork that use it, as servers preload a program.

python preloaded.py DATABASE_URL

The first one is killed in its step by the second, which then takes the thread.
"""

from __future__ import annotations

import asyncio
import operator
import os
import signal
import sys
import time
from typing import Annotated, TypedDict

from petal.checkpoints import leases
from petal.core.agent import Agent
from petal.core.factory import AgentFactory
from petal.core.turns import is_running

# A tenth of what they are, so that the test need not wait for long.
leases.BELIEVED, leases.PULSE = 0.6, 0.15


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


READY, REACHED = os.pipe()


def hold(state: Said) -> Said:
    if state["said"] == ["first"]:
        os.write(REACHED, b".")
        time.sleep(60)
    return {"said": ["held"]}


def forked(agent: Agent, name: str, first: int = 0) -> int:
    if not (child := os.fork()):
        try:
            if first:
                assert agent.checkpointer is not None
                print("runs" if asyncio.run(is_running(agent.checkpointer, "t")) else "is free", flush=True)
                os.kill(first, signal.SIGKILL)
            with agent:
                print(agent.invoke({"said": [name]}, thread_id="t", conflict_timeout=10)["said"], flush=True)
        finally:
            os._exit(0)
    return child


def main(url: str) -> None:
    agent = AgentFactory(Said).add(hold).with_checkpointer(url).build()
    first = forked(agent, "first")
    os.read(READY, 1)
    second = forked(agent, "second", first)
    os.waitpid(first, 0)
    os.waitpid(second, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
