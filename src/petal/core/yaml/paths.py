"""Paths in a file are relative to the file, not to where the process was started."""

from __future__ import annotations

import os
from pathlib import Path

from petal.core.config.agent import LLMConfig


def beside(path: str, folder: Path) -> str:
    """The path as it is seen from `folder`, without `..` and with `~` for the user's home."""
    return os.path.normpath(folder / Path(path).expanduser())


def local_model(config: LLMConfig, folder: Path) -> LLMConfig:
    """The model, with the path of a `local:` one as it is seen from `folder`; a bare name is no path."""
    is_path = config.model.lower().endswith(".gguf") or "/" in config.model or os.sep in config.model
    if config.provider != "local" or not is_path:
        return config
    return config.model_copy(update={"model": beside(config.model, folder)})
