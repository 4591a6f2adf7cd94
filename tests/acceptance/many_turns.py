"""A process for the tests: takes many turns on one thread and prints how many the thread has seen.

python many_turns.py DATABASE_URL THREAD TURNS
"""

from __future__ import annotations

import sys
from typing import TypedDict

from petal.core.factory import AgentFactory


class Count(TypedDict, total=False):
    n: int


def count(state: Count) -> Count:
    return {"n": state.get("n", 0) + 1}


def main(url: str, thread_id: str, turns: str) -> None:
    with AgentFactory(Count).add(count).with_checkpointer(url).build() as agent:
        for _ in range(int(turns)):
            result = agent.invoke({}, thread_id=thread_id)
        print(f"{thread_id}: {result['n']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
