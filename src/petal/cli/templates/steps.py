"""Steps of the agent that are functions of its state."""

from __future__ import annotations

from typing import Any


def count(state: dict[str, Any]) -> dict[str, Any]:
    """Count the turns of a conversation; what a step returns is put into the state."""
    return {"turns": state["turns"] + 1}
