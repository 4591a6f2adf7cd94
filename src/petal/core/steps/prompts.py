"""Prompts: text with `{keys}` that are filled from the state."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from petal.errors import AgentConfigurationError, PromptKeyError


@dataclass(frozen=True, slots=True)
class Prompt:
    """A template of one step, checked when it is made.

    Attributes:
        template: `str.format` syntax; `{user.name}` and `{items[0]}` reach into values, `{{` is a brace.
        step: Name of the step, for errors.
        keys: The keys of the state that it names.
    """

    template: str
    step: str
    keys: frozenset[str]

    @classmethod
    def parse(cls, template: str, step: str, known: Sequence[str]) -> Prompt:
        """The prompt, if each key that it names is known.

        Raises:
            PromptKeyError: If it names a key that is not among `known`.
            AgentConfigurationError: If braces don't match, or a field has no name.
        """
        try:
            keys = keys_of(template)
        except ValueError as error:
            raise AgentConfigurationError(
                f"The prompt of step {step!r} cannot be read: {error}. Write {{{{ and }}}} for literal braces."
            ) from None
        for key in keys:
            if not key or key.isdecimal():
                raise AgentConfigurationError(
                    f"The prompt of step {step!r} has a field without a name; write a key of the state between "
                    f"the braces, one of {', '.join(known)}, or {{{{ and }}}} for literal braces."
                )
            if key not in known:
                raise PromptKeyError(step, key, known)
        return cls(template, step, keys)

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text with each key replaced.

        Raises:
            PromptKeyError: If a key has no value.
        """
        for key in sorted(self.keys):
            if key not in values:
                raise PromptKeyError(self.step, key, tuple(values))
        return self.template.format_map(values)


def keys_of(template: str) -> frozenset[str]:
    """The keys that a template names; raises ValueError where its braces don't match."""
    fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    return frozenset(re.split(r"[.\[]", field, maxsplit=1)[0] for field in fields)
