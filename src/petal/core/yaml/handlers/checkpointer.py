"""Where an agent keeps its state, as a YAML file says it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petal.core.config.checkpointer import MEMORY_FILE, CheckpointerConfig
from petal.core.yaml.expansion import ExpansionError, expand
from petal.core.yaml.paths import beside
from petal.errors import CheckpointerConfigurationError


class CheckpointerYAMLHandler:
    """Handle checkpointer configuration in YAML.

    Args:
        base: The folder that a relative `db_file` is seen from; default: where the process was started.
    """

    def __init__(self, base: Path | None = None) -> None:
        self._base = base

    def parse_checkpointer_config(self, config: dict[str, Any]) -> CheckpointerConfig:
        """Parse checkpointer configuration from YAML.

        Args:
            config: The mapping under `checkpointer:`; `${NAME}` and `${NAME:-default}` in its texts are expanded.

        Raises:
            CheckpointerConfigurationError: If it is no mapping, an environment variable is not set, a key is unknown
                or a value is wrong.
        """
        given: Any = config
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise CheckpointerConfigurationError("A checkpointer is a mapping with the keys type, config and enabled.")
        try:
            expanded = _expanded(given)
        except ExpansionError as error:
            raise CheckpointerConfigurationError(str(error)) from None
        return located(CheckpointerConfig(**expanded), self._base)

    def validate_checkpointer_config(self, config: dict[str, Any]) -> bool:
        """Validate checkpointer configuration: whether `parse_checkpointer_config` accepts it."""
        try:
            self.parse_checkpointer_config(config)
        except CheckpointerConfigurationError:
            return False
        return True


def located(config: CheckpointerConfig, base: Path | None) -> CheckpointerConfig:
    """The configuration with a relative `db_file` as it is seen from `base`."""
    options = config.config or {}
    file = options.get("db_file")
    if base is None or not file or file == MEMORY_FILE:
        return config
    return config.model_copy(update={"config": {**options, "db_file": beside(file, base)}})


def _expanded(value: Any) -> Any:
    if isinstance(value, str):
        return expand(value)
    if isinstance(value, Mapping):
        return {key: _expanded(inner) for key, inner in value.items()}
    return value
