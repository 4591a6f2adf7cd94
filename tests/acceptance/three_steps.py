"""A process for the tests: an agent of three steps, each with a side effect, that can be made to wait before one.

python three_steps.py DATABASE_URL EFFECTS_FILE start|resume [STEP_TO_WAIT_BEFORE]
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypedDict

from petal.core.factory import AgentFactory

STEPS = ("one", "two", "three")


class Done(TypedDict, total=False):
    order: str
    done: Annotated[list[str], operator.add]


def step(name: str, effects: Path, waits: bool) -> Callable[[Done], Done]:
    def run(state: Done) -> Done:
        if waits:
            print(f"waiting before {name}", flush=True)
            time.sleep(60)
        with effects.open("a") as file:
            file.write(f"{name} for {state.get('order')}\n")
        return {"done": [name]}

    return run


def main(url: str, effects: str, act: str, wait_before: str = "") -> None:
    factory = AgentFactory(Done)
    for name in STEPS:
        factory.add(step(name, Path(effects), name == wait_before), name)
    with factory.with_checkpointer(url).build() as agent:
        thread = agent.thread("t")
        result = thread.invoke({"order": "tea"}) if act == "start" else thread.resume()
        print(result["done"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
