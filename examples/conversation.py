"""A conversation that outlives the process: run it twice, and it remembers your name.

python examples/conversation.py [DATABASE_URL]
"""

from __future__ import annotations

import sys

from petal import AgentFactory, DefaultState


def main(url: str = "sqlite:///conversation.db") -> None:
    factory = (
        AgentFactory(DefaultState)
        .with_chat(llm="demo:", system_prompt="You are a helpful assistant.")
        .with_checkpointer(url)
    )
    with factory.build() as agent:
        thread = agent.thread("ada")
        if not thread.state().values:
            print(thread.invoke("My name is Ada.")["messages"][-1].text)
        print(thread.invoke("What is my name?")["messages"][-1].text)
        print(f"{len(thread.history())} checkpoints in {url}")


if __name__ == "__main__":
    main(*sys.argv[1:])
