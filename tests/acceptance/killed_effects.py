"""A process for the tests: an agent that mails and charges, and waits to be killed within the charge or behind it.

python killed_effects.py DATABASE_URL EFFECTS_FILE step|tool|react DURABILITY start|resume [within|behind]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from langchain_core.messages import AIMessage

import petal
from petal.core.factory import AgentFactory
from petal.testing import ScriptedChatModel
from petal.types.state import DefaultState


def main(url: str, effects: str, kind: str, durability: str, act: str, wait: str = "") -> None:
    def happen(what: str) -> str:
        with Path(effects).open("a") as file:
            file.write(f"{what} {petal.idempotency_key()}\n")
        return f"{what} happened"

    def stop(where: str) -> None:
        if wait == where:
            print(f"waiting {where}", flush=True)
            time.sleep(60)

    def charge(amount: int) -> str:
        """Charge an amount."""
        done = happen("charge")
        stop("within")
        return done

    def pay(state: DefaultState) -> DefaultState:
        petal.step("mail", happen, "mail")
        petal.step("charge", charge, 3)
        stop("behind")
        return {}

    asking = AIMessage("", tool_calls=[{"name": "charge", "args": {"amount": 3}, "id": "1"}])
    factory = AgentFactory(DefaultState)
    match kind:
        case "step":
            factory.add(pay, "pay")
        case "tool":
            factory.add(lambda state: {"messages": [asking]}, "ask").with_tool_step([charge])
        case _:
            replies = [asking, "Done."] if act == "start" else ["Done."]
            factory.with_react_loop([charge], llm=ScriptedChatModel(replies=replies))
    with factory.with_checkpointer(url).build() as agent:
        thread = agent.thread("t")
        if act == "start":
            thread.invoke("go", durability=durability)
        else:
            thread.resume(durability=durability)
        print([(call.name, call.status, call.attempt) for call in thread.tool_calls()], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
