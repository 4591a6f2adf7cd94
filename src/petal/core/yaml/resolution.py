"""The names in a document as the objects that they stand for; what cannot be found is noted with its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petal.core.yaml.document import Place
from petal.core.yaml.mistakes import Mistakes
from petal.errors import AgentConfigurationError
from petal.types.references import resolve


@dataclass(frozen=True, slots=True)
class Resolution:
    """Finds what the references of one document name."""

    folder: Path
    """The document's folder: modules are looked for there first, and paths are relative to it."""
    mistakes: Mistakes

    def find(self, place: Place, reference: str, what: str, fits: Callable[[Any], bool]) -> Any:
        """The object that a reference names.

        Args:
            place: Where the reference stands.
            reference: `package.module:name`.
            what: What it has to be, for the message: `a function`.
            fits: Whether an object is that.

        Returns:
            The object; None if a mistake was noted.
        """
        try:
            found = resolve(reference, folder=self.folder)
        except AgentConfigurationError as error:
            self.mistakes.add_error(place, error)
            return None
        if not fits(found):
            self.mistakes.add(place, f"{self.mistakes.shown(place)} is {_described(found)}, not {what}.")
            return None
        return found


def runs(found: Any) -> bool:
    """Whether it is a function, a Runnable or a graph."""
    return callable(found) or callable(getattr(found, "invoke", None))


def _described(found: Any) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
