"""A workflow that fails half-way and goes on from there: the step that was done is not done again.

python examples/workflow.py [DATABASE_URL]
"""

from __future__ import annotations

import operator
import sys
from typing import Annotated, TypedDict

from petal import AgentFactory


class Order(TypedDict, total=False):
    item: str
    done: Annotated[list[str], operator.add]


def main(url: str = "sqlite:///workflow.db") -> None:
    shop_is_open = False

    def reserve(state: Order) -> Order:
        print(f"reserving {state['item']}")
        return {"done": ["reserved"]}

    def pay(state: Order) -> Order:
        if not shop_is_open:
            raise ConnectionError("the bank does not answer")
        print("paying")
        return {"done": ["paid"]}

    def send(state: Order) -> Order:
        print("sending")
        return {"done": ["sent"]}

    factory = AgentFactory(Order, name="order").add(reserve).add(pay).with_retry(2, delay=0.1).add(send)
    with factory.with_checkpointer(url).build() as agent:
        thread = agent.thread("order-7")
        try:
            thread.invoke({"item": "a kettle"})
        except ConnectionError as error:
            print(f"stopped: {error}; next: {', '.join(thread.state().next)}")
        shop_is_open = True
        print(thread.resume()["done"])
        thread.delete()


if __name__ == "__main__":
    main(*sys.argv[1:])
