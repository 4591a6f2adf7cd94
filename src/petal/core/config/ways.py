"""The ways between an agent's steps, and what is odd about them though it is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langgraph.graph import END

from petal.core.config.agent import StepConfig


def oddities(steps: Sequence[StepConfig]) -> dict[str, str]:
    """What is odd, by the step at which it is: one that no way leads to, or the first of some that go round for ever.

    Neither is a mistake for certain: a function may lead on by a `Command` or a `Send`, or end such a round by a
    question or an error.
    """
    ways = _ways(steps)
    begun = _reached(ways, steps[0].name)
    found: dict[str, str] = {}
    for step in steps:
        after = _reached(ways, *ways[step.name])
        if step.name not in begun:
            found[step.name] = (
                "No way leads here from the first step; it runs only if a function says so by a Command or a Send."
            )
        elif after.isdisjoint({END, *found}) and all(step.name in _reached(ways, *ways[other]) for other in after):
            several = ", ".join(repr(other.name) for other in steps if other.name in after)
            found[step.name] = f"A run never ends from here on: the ways behind {several} lead back to them only."
    return found


def _ways(steps: Sequence[StepConfig]) -> Mapping[str, frozenset[str]]:
    """The steps that each step may go on to, also after a human's no; `END` where that or an error ends a run."""
    ways: dict[str, frozenset[str]] = {}
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        after = step.next or (following.name if following else END)
        on = set(step.condition.routes.values()) if step.condition else {after}
        if step.approval and step.approval.on_reject != "skip":  # which goes on where the step does
            on.add(END if step.approval.on_reject == "fail" else step.approval.on_reject)
        ways[step.name] = frozenset(on)
    return ways


def _reached(ways: Mapping[str, frozenset[str]], *begin: str) -> set[str]:
    """The steps to begin with, and all that their ways lead to."""
    reached: set[str] = set()
    left = list(begin)
    while left:
        if (at := left.pop()) not in reached:
            reached.add(at)
            left += ways.get(at, ())
    return reached
