"""What of the past is kept: frozen data that touches no database."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from petal.errors import CheckpointerConfigurationError, known_names

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds(duration: float | str) -> float:
    """A duration in seconds, from a number of them or from text such as `90s`, `15m`, `12h`, `30d` or `2w`.

    Raises:
        ValueError: If it is none, or not greater than zero.
    """
    if isinstance(duration, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", duration)
        if found is None:
            raise ValueError(f"{duration!r} is no duration; write seconds as a number, or 90s, 15m, 12h, 30d or 2w")
        duration = float(found[1]) * _UNITS[found[2]]
    if not (duration > 0 and math.isfinite(duration)):
        raise ValueError("a duration is greater than zero")
    return float(duration)


Duration = Annotated[float | str, AfterValidator(seconds)]


class Retention(BaseModel):
    """Which checkpoints of a thread may be deleted.

    Each rule names checkpoints that go, and one rule that names a checkpoint is enough; without rules all stay.
    Whatever the rules say, these stay:

    - the newest checkpoint of the root graph, and of each subgraph that keeps a state of its own;
    - a checkpoint with an open question: one that nothing follows, and in which an answer is awaited;
    - what `keep` names;
    - what a checkpoint that stays is rebuilt from: ancestors of its delta channels, and of each subgraph call that
      began at it the newest checkpoint.

    Older checkpoints of one subgraph call are judged like others; they never outlive the root checkpoint at which the
    call began.

    Raises:
        CheckpointerConfigurationError: If a rule is unknown or has a wrong value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    keep_last: int | None = Field(default=None, ge=1)
    """All but so many go, the newest ones of each namespace of a thread."""
    max_age: Duration | None = None
    """Those go that were made longer ago: seconds, or text such as `30d` (`s`, `m`, `h`, `d`, `w`). One whose id and
    header don't tell when it was made stays."""
    max_idle: Duration | None = None
    """Whole threads go, the newest checkpoints too, in which no checkpoint was made for so long: seconds, or text such
    as `90d`. Not one with an open question, or of which `keep` names a checkpoint."""
    max_bytes: int | None = Field(default=None, ge=1)
    """The oldest go until what the thread keeps takes no more bytes, as `threads()` counts them, or only that is left
    which always stays."""
    keep: tuple[str, ...] = ()
    """Ids of checkpoints that never go, and of threads of which nothing goes."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise CheckpointerConfigurationError(_explained(error)) from None

    @property
    def is_empty(self) -> bool:
        """Whether no rule is set, so that everything stays."""
        return self.keep_last is None and self.max_age is None and self.max_idle is None and self.max_bytes is None


def _explained(error: ValidationError) -> str:
    told: dict[str, str] = {}
    for mistake in error.errors(include_url=False, include_input=False, include_context=False):
        name, problem = str(mistake["loc"][0]), mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            told[name] = f"Retention has no rule {name!r}. {known_names(name, list(Retention.model_fields))}"
        else:
            told.setdefault(name, f"Retention's {name}: {problem}.")
    return " ".join(told.values())
