"""Many users at once, each on a thread of their own: nobody sees another's conversation.

python examples/many_users.py [DATABASE_URL]
"""

from __future__ import annotations

import asyncio
import sys

from petal import AgentFactory, ConversationState

USERS = ("Ada", "Grace", "Edsger", "Barbara")


async def main(url: str = "memory://") -> None:
    factory = AgentFactory(ConversationState).with_chat(llm="demo:", system_prompt="You talk with {user_id}.")
    async with factory.with_checkpointer(url).build() as agent:
        threads = [f"user-{user}" for user in USERS]
        told = [{"user_id": user, "messages": [("user", f"My name is {user}.")]} for user in USERS]
        await agent.abatch(told, thread_ids=threads)
        answers = await agent.abatch(["What is my name?"] * len(USERS), thread_ids=threads)
        for user, answer in zip(USERS, answers, strict=True):
            print(f"{user}: {answer['messages'][-1].text}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
