"""A long task with progress on disk: stop it with ctrl-c, run it again, and it goes on at the page where it was.

python examples/long_task.py [DATABASE_URL] [PAGES]
"""

from __future__ import annotations

import operator
import sys
import time
from typing import Annotated, TypedDict

from petal import AgentFactory


class Reading(TypedDict, total=False):
    pages: int
    read: Annotated[int, operator.add]


def read_page(state: Reading) -> Reading:
    time.sleep(0.05)
    return {"read": 1}


def whether_done(state: Reading) -> str:
    return "done" if state["read"] >= state["pages"] else "more"


def main(url: str = "sqlite:///long_task.db", pages: str = "20") -> None:
    factory = (
        AgentFactory(Reading, name="reading")
        .add(read_page)
        .with_condition(whether_done, {"more": "read_page", "done": "END"})
        .with_checkpointer(url)
    )
    with factory.build() as agent:
        thread = agent.thread("book")
        before = thread.state()
        begun = {"pages": int(pages), "read": 0} if not before.next else None
        if begun is None:
            print(f"going on after page {before.values.get('read', 0)}")
        options = {"config": {"recursion_limit": int(pages) + 10}}
        for values in thread.stream(begun, stream_mode="values", **options):
            print(f"page {values.get('read', 0)} of {values['pages']}")
        thread.delete()


if __name__ == "__main__":
    main(*sys.argv[1:])
