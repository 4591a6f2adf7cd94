"""What brings kept state to an agent's version, as a YAML file says it."""

from __future__ import annotations

from petal.core.config.agent import MigrationConfig
from petal.core.yaml.document import Place
from petal.core.yaml.format import Migration
from petal.core.yaml.resolution import Resolution


def migration_of(migration: Migration, place: Place, resolution: Resolution) -> MigrationConfig:
    """A migration with the function that the file names; None in its place if a mistake was noted."""
    found = resolution.find((*place, "function"), migration.function, "a function", callable)
    return MigrationConfig(**{"from": migration.start, "to": migration.to, "function": found})
