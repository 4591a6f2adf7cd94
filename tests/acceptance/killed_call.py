"""A process for the tests: it is asked to charge, and dies before the tool begins or while it is at work.

python killed_call.py DATABASE_URL llm|react before|within
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

from petal.core.factory import AgentFactory
from petal.types.state import DefaultState


class Death(BaseCallbackHandler):
    """Kills this process as soon as the node that runs tools is entered."""

    def on_chain_start(self, serialized: Any, inputs: Any, *, metadata: Any = None, **kwargs: Any) -> None:
        if str((metadata or {}).get("langgraph_node")).endswith("tools"):
            os.kill(os.getpid(), signal.SIGKILL)


def charge(amount: int) -> str:
    """Charge an amount."""
    os.kill(os.getpid(), signal.SIGKILL)
    return f"charged {amount}"


def main(url: str, kind: str, when: str) -> None:
    factory = AgentFactory(DefaultState)
    if kind == "llm":
        factory.with_chat(llm="openai:gpt-4o").with_tools([charge])
    else:
        factory.with_react_loop([charge], llm="openai:gpt-4o")
    with factory.with_checkpointer(url).build() as agent:
        agent.invoke("Charge 3.", {"callbacks": [Death()] if when == "before" else []}, thread_id="t")


if __name__ == "__main__":
    main(*sys.argv[1:])
