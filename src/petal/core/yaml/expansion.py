"""Environment variables in text: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar sign."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from petal.errors import nearest

_MARK = re.compile(r"\$\$|\$\{(?P<inside>[^}]*)(?P<close>\})?")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


class ExpansionError(ValueError):
    """A text holds a `${…}` that cannot be expanded; told by whoever knows where the text stands."""


def expand(text: str, environ: Mapping[str, str] | None = None) -> str:
    """The text with each `${…}` replaced. What it is replaced by is not looked at again.

    Args:
        text: `${NAME}` stands for the variable's value; `${NAME:-default}` for the default where the variable is not
            set or empty; `$$` for `$`. A `$` before anything else stays as it is.
        environ: The variables; default: the process's environment.

    Raises:
        ExpansionError: If a variable without a default is not set, or a `${` is not closed or holds no name.
    """
    variables = os.environ if environ is None else environ

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match["close"] is None:
            raise ExpansionError("'${' is not closed by '}'; write $${ for the characters themselves.")
        inside = _INSIDE.fullmatch(match["inside"])
        if inside is None:
            raise ExpansionError(
                f"{match[0]!r} names no environment variable; write ${{NAME}} or ${{NAME:-default}}, "
                "or $${ for the characters themselves."
            )
        name, default = inside["name"], inside["default"]
        if default is not None:
            return variables.get(name) or default
        if name not in variables:
            guess = nearest(name, variables)
            hint = f" Did you mean {guess!r}?" if guess else ""
            raise ExpansionError(
                f"The environment variable {name!r} is not set.{hint} Set it, write ${{{name}:-default}}, "
                f"or $${{{name}}} for the characters themselves."
            )
        return variables[name]

    return _MARK.sub(value, text)
