"""Where state is kept: checkpoint savers for any LangGraph program, imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petal.checkpoints.annotations import types_in
    from petal.checkpoints.conversion.convert import Conversion, Progress, ThreadsNotConvertedError, convert
    from petal.checkpoints.retention import RetentionReport
    from petal.checkpoints.saver import PetalSaver
    from petal.checkpoints.savers import MemorySaver, PostgresSaver, SqliteSaver, open_checkpointer
    from petal.checkpoints.status import DatabaseStatus, database_status, upgrade_database
    from petal.checkpoints.threads import CheckpointInfo, ThreadInfo
    from petal.core.config.retention import Retention

_HOMES = {
    "CheckpointInfo": "petal.checkpoints.threads",
    "Conversion": "petal.checkpoints.conversion.convert",
    "DatabaseStatus": "petal.checkpoints.status",
    "MemorySaver": "petal.checkpoints.savers",
    "PetalSaver": "petal.checkpoints.saver",
    "PostgresSaver": "petal.checkpoints.savers",
    "Progress": "petal.checkpoints.conversion.convert",
    "Retention": "petal.core.config.retention",
    "RetentionReport": "petal.checkpoints.retention",
    "SqliteSaver": "petal.checkpoints.savers",
    "ThreadInfo": "petal.checkpoints.threads",
    "ThreadsNotConvertedError": "petal.checkpoints.conversion.convert",
    "convert": "petal.checkpoints.conversion.convert",
    "database_status": "petal.checkpoints.status",
    "open_checkpointer": "petal.checkpoints.savers",
    "types_in": "petal.checkpoints.annotations",
    "upgrade_database": "petal.checkpoints.status",
}

__all__ = [
    "CheckpointInfo",
    "Conversion",
    "DatabaseStatus",
    "MemorySaver",
    "PetalSaver",
    "PostgresSaver",
    "Progress",
    "Retention",
    "RetentionReport",
    "SqliteSaver",
    "ThreadInfo",
    "ThreadsNotConvertedError",
    "convert",
    "database_status",
    "open_checkpointer",
    "types_in",
    "upgrade_database",
]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module 'petal.checkpoints' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
