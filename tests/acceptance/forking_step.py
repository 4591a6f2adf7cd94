"""A process for the tests: an async step that forks, and a process that goes on with the agent amid this step."""

from __future__ import annotations

import asyncio
import operator
import os
import sys
import warnings
from typing import Annotated, TypedDict

from petal.core.factory import AgentFactory


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


async def step(state: Said) -> Said:
    if state["said"] == ["parent"]:
        if not (child := os.fork()):
            print(agent.invoke({"said": ["child"]}, thread_id="child")["said"])
            sys.stdout.flush()
            os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
    return {"said": ["done"]}


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # a Python that advises against it
    with AgentFactory(Said).add(step).with_checkpointer("memory://").build() as agent:
        print(agent.invoke({"said": ["parent"]}, thread_id="parent")["said"])
