"""A process for the tests: it is asked to charge, and dies before the tool begins, while it is at work or behind it.

python killed_call.py DATABASE_URL llm|react before|within|behind
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from petal.core.factory import AgentFactory
from petal.types.state import DefaultState


class Death(BaseCallbackHandler):
    """Kills this process as soon as the node that runs tools is entered, or is left and has saved nothing yet."""

    def __init__(self, when: str) -> None:
        self._when = when
        self._entered = set[UUID]()

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, metadata: Any = None, **kwargs: Any
    ) -> None:
        if str((metadata or {}).get("langgraph_node")).endswith("tools"):
            self._entered.add(run_id)
            if self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if self._when == "behind" and run_id in self._entered:
            os.kill(os.getpid(), signal.SIGKILL)


def main(url: str, kind: str, when: str) -> None:
    def charge(amount: int) -> str:
        """Charge an amount."""
        if when == "within":
            os.kill(os.getpid(), signal.SIGKILL)
        return f"charged {amount}"

    factory = AgentFactory(DefaultState)
    if kind == "llm":
        factory.with_chat(llm="openai:gpt-4o").with_tools([charge])
    else:
        factory.with_react_loop([charge], llm="openai:gpt-4o")
    with factory.with_checkpointer(url).build() as agent:
        agent.invoke("Charge 3.", {"callbacks": [Death(when)]}, thread_id="t")


if __name__ == "__main__":
    main(*sys.argv[1:])
