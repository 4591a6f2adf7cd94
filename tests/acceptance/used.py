"""A process for the tests: an agent that was used before the process forked, and is used on both sides.

python used.py DATABASE_URL ENGINE
"""

from __future__ import annotations

import asyncio
import operator
import os
import sys
import warnings
from typing import Annotated, TypedDict

from petal.checkpoints import open_checkpointer
from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory
from petal.errors import CheckpointerUnavailableError

TURN = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def done(state: Said) -> Said:
    return {"said": ["done"]}


def main(url: str, engine: str) -> None:
    closed = open_checkpointer(url, engine=engine)
    closed.get_tuple(TURN)
    closed.close()
    config = CheckpointerConfig.from_url(url, engine=engine)
    with AgentFactory(Said).add(done).with_checkpointer(config).build() as agent:
        agent.invoke({"said": ["first"]}, thread_id="t")
        assert agent.checkpointer is not None
        if not (child := os.fork()):
            for name in "sync", "async":
                try:
                    if name == "sync":
                        print(agent.invoke({"said": [name]}, thread_id="t")["said"])
                    else:
                        print(asyncio.run(agent.ainvoke({"said": [name]}, thread_id="t"))["said"])
                except CheckpointerUnavailableError as error:
                    print(f"{name}: {error.problem}")
                try:
                    if name == "sync":
                        found = agent.checkpointer.get_tuple(TURN)
                    else:
                        found = asyncio.run(agent.checkpointer.aget_tuple(TURN))
                    assert found is not None
                    print(f"{name}: {found.checkpoint['channel_values']['said']}")
                except CheckpointerUnavailableError as error:
                    print(f"{name}: {error.problem}")
            return
        os.waitpid(child, 0)
        print(agent.invoke({"said": ["second"]}, thread_id="t")["said"])


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # a Python that advises against it
    main(*sys.argv[1:])
