"""A process for the tests: takes turns on a thread that another process takes turns on too.

python rounds.py DATABASE_URL NAME ROUNDS
"""

from __future__ import annotations

import asyncio
import operator
import sys
from typing import Annotated, TypedDict

from petal.core.factory import AgentFactory


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def answer(state: Said) -> Said:
    return {"said": [f"answer to {state['said'][-1]}"]}


async def main(url: str, name: str, rounds: str) -> None:
    async with AgentFactory(Said).add(answer).with_checkpointer(url).build() as agent:
        for number in range(int(rounds)):
            await agent.ainvoke({"said": [f"{name} {number}"]}, thread_id="t")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
