"""The prompts of an agent's steps, checked against its state where they stand."""

from __future__ import annotations

from collections.abc import Sequence

from petal.core.detours import approval_name
from petal.core.steps.prompts import Prompt
from petal.core.yaml.document import Place
from petal.core.yaml.format import StepEntry
from petal.core.yaml.mistakes import Mistakes
from petal.errors import AgentConfigurationError
from petal.types.state import state_keys


def check_prompts(steps: Sequence[StepEntry], state_type: type, mistakes: Mistakes) -> None:
    """Note each prompt that cannot be read, or names a key that the state does not have.

    `messages` counts as one, for steps that are added in code may bring it.
    """
    try:
        known = tuple(dict.fromkeys((*state_keys(state_type), "messages")))
    except AgentConfigurationError as error:
        mistakes.add_error(("state_type",), error)
        return
    for index, step in enumerate(steps):
        place: Place = ("steps", index)
        for name in ("prompt_template", "system_prompt"):
            template = getattr(getattr(step, "config", None), name, None)
            _check(template, step.name, known, (*place, "config", name), mistakes)
        if step.approval is not None:
            long = (*place, "approval", "prompt")
            at = long if mistakes.has(long) else (*place, "approval")
            _check(step.approval.prompt, approval_name(step.name), (*known, "step"), at, mistakes)


def _check(template: str | None, step: str, known: Sequence[str], place: Place, mistakes: Mistakes) -> None:
    try:
        if template is not None:
            Prompt.parse(template, step, known)
    except AgentConfigurationError as error:
        mistakes.add_error(place, error)
