"""A process for the tests: has one turn, and is killed in the first step of the next one.

python killed_input.py DATABASE_URL DURABILITY
"""

from __future__ import annotations

import operator
import os
import signal
import sys
from typing import Annotated, TypedDict

from petal.core.factory import AgentFactory


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def die(state: Said) -> Said:
    if state["said"][-1] == "start":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"said": ["answer"]}


def main(url: str, durability: str) -> None:
    with AgentFactory(Said).add(die).with_checkpointer(url).build() as agent:
        for said in "before", "start":
            agent.invoke({"said": [said]}, thread_id="t", durability=durability)


if __name__ == "__main__":
    main(*sys.argv[1:])
