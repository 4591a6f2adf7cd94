"""Prompts are checked when a step is built, and filled from the state."""

from __future__ import annotations

import pytest

from petal.core.steps.prompts import Prompt
from petal.errors import AgentConfigurationError, PromptKeyError

KNOWN = ("input", "user", "items")


def test_a_prompt_is_filled_from_the_state() -> None:
    prompt = Prompt.parse("Hello {user}: {items[0]}, {{literal}}", "greet", KNOWN)
    assert prompt.keys == {"user", "items"}
    assert prompt.fill({"user": "Ada", "items": ["tea"]}) == "Hello Ada: tea, {literal}"


def test_an_unknown_key_is_named_when_the_step_is_built() -> None:
    with pytest.raises(PromptKeyError) as caught:
        Prompt.parse("Hello {usr}", "greet", KNOWN)
    assert str(caught.value) == (
        "The prompt of step 'greet' names {usr}, which the state does not have. Did you mean 'user'? "
        "Known: input, user, items. Write {{ and }} for literal braces."
    )


def test_a_key_without_a_value_is_named_when_the_step_runs() -> None:
    with pytest.raises(PromptKeyError, match=r"names \{user\}"):
        Prompt.parse("Hello {user}", "greet", KNOWN).fill({"input": "x"})


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("an open { brace", "cannot be read"),
        ("a field without a name: {}", "a field without a name"),
        ("a number: {0}", "a field without a name"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused(template: str, problem: str) -> None:
    with pytest.raises(AgentConfigurationError, match=problem):
        Prompt.parse(template, "greet", KNOWN)
