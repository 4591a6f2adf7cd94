"""Where state is kept: checkpoint savers for any LangGraph program, imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petal.checkpoints.annotations import types_in
    from petal.checkpoints.savers import MemorySaver, PostgresSaver, SqliteSaver, open_checkpointer
    from petal.checkpoints.threads import ThreadInfo

_HOMES = {
    "MemorySaver": "petal.checkpoints.savers",
    "PostgresSaver": "petal.checkpoints.savers",
    "SqliteSaver": "petal.checkpoints.savers",
    "ThreadInfo": "petal.checkpoints.threads",
    "open_checkpointer": "petal.checkpoints.savers",
    "types_in": "petal.checkpoints.annotations",
}

__all__ = ["MemorySaver", "PostgresSaver", "SqliteSaver", "ThreadInfo", "open_checkpointer", "types_in"]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module 'petal.checkpoints' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
