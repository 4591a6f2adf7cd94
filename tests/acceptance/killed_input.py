"""A process for the tests: it is killed in the first step of a turn, the first or a later one, or of its recovery.

python killed_input.py DATABASE_URL DURABILITY [first|later|recover] [WORD]
"""

from __future__ import annotations

import operator
import os
import signal
import sys
from typing import Annotated, Any, TypedDict

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.factory import AgentFactory


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def die(state: Said) -> Said:
    if state["said"][-1] != "before":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"said": ["answer"]}


def main(url: str, durability: Any, act: str = "later", word: str = "start") -> None:
    storage = CheckpointerConfig.from_url(url, durability=durability)
    with AgentFactory(Said).add(die).with_checkpointer(storage).build() as agent:
        match act:
            case "recover":
                list(agent.recover())
            case "later":
                agent.invoke({"said": ["before"]}, thread_id="t")
        agent.invoke({"said": [word]}, thread_id="t")


if __name__ == "__main__":
    main(*sys.argv[1:])
