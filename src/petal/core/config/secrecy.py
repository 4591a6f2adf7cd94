"""Which settings are not shown, told by their names."""

from __future__ import annotations

import re

_SECRET = re.compile(r"(?i)api_?key|access_key|connection_string|passw|secret|token$|credential|headers$|^env$")


def is_secret(name: str) -> bool:
    """Whether the value of a setting of this name may hold a secret, so that neither errors nor texts repeat it."""
    return _SECRET.search(name) is not None
