"""The functions that agent.yaml names."""

from __future__ import annotations

from typing import Any

PRICES = {"A1": 12.5, "B2": 990.0}


class ShopDown(Exception):
    """The shop does not answer."""


def look_up(state: dict[str, Any]) -> dict[str, Any]:
    """Find what the order costs."""
    return {"amount": PRICES.get(state["order"], 0.0), "log": f"looked up {state['order']}"}


def refundable(state: dict[str, Any]) -> str:
    """Whether there is something to pay back."""
    return "yes" if state["amount"] > 0 else "no"


def refund(state: dict[str, Any]) -> dict[str, Any]:
    """Pay the order back."""
    return {"log": f"refunded {state['amount']}"}


def order_status(order: str) -> str:
    """Where an order is."""
    return "delivered" if order in PRICES else "unknown"


def rules() -> str:
    """The rules."""
    return "Within 30 days."
