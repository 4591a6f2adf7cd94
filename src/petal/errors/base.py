"""What all errors have in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known name that `name` was most likely meant to be, if one is as like it as that (1.0: equal)."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return found[0] if found else None


def known_names(name: str, known: Sequence[str]) -> str:
    """What to say after an unknown name: the nearest known one, if one is close, and all of them."""
    guess = nearest(name, known)
    hint = f"Did you mean {guess!r}? " if guess else ""
    return f"{hint}Known: {', '.join(known) or 'none'}."


def words_of(error: BaseException) -> str:
    """The text of an error; of one whose class fails at it, as where it skips `super().__init__`, that it has none."""
    try:
        return str(error)
    except Exception:
        return "(it cannot say what is wrong)"


class PetalError(Exception):
    """Base of every error that Petal raises."""
