"""What users need to test their own agents: real parts, and faults made on purpose."""

from petal.testing.models import ScriptedChatModel, ScriptEndedError
from petal.testing.postgres import (
    PostgresMissingError,
    PostgresServer,
    PostgresStartError,
    create_database,
    drop_database,
    postgres_server,
)

__all__ = [
    "PostgresMissingError",
    "PostgresServer",
    "PostgresStartError",
    "ScriptEndedError",
    "ScriptedChatModel",
    "create_database",
    "drop_database",
    "postgres_server",
]
