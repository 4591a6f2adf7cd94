"""A process for the tests: a run that stays in its step until it is told to go on.

python held.py DATABASE_URL NAME
"""

from __future__ import annotations

import operator
import sys
from typing import Annotated, TypedDict

from petal.checkpoints import leases
from petal.core.factory import AgentFactory
from petal.errors import CheckpointConflictError

# A tenth of what they are, so that the test need not wait for long.
leases.BELIEVED, leases.PULSE = 0.6, 0.15


class Said(TypedDict, total=False):
    said: Annotated[list[str], operator.add]


def hold(state: Said) -> Said:
    print("in its step", flush=True)
    sys.stdin.readline()
    return {"said": ["held"]}


def main(url: str, name: str) -> None:
    with AgentFactory(Said).add(hold).with_checkpointer(url).build() as agent:
        try:
            print(agent.invoke({"said": [name]}, thread_id="t")["said"], flush=True)
        except CheckpointConflictError as error:
            print(f"conflict: {error}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
