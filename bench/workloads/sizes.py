"""How much of a workload is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done, and for how long at most.

    Attributes:
        turns: Of the long chat.
        scale: Of all other counts.
        seconds: When a run is stopped and marked.
    """

    turns: int = 1000
    scale: float = 1.0
    seconds: float = 240.0

    def scaled(self, count: int) -> int:
        """So many of `count`, at least one."""
        return max(1, round(count * self.scale))
