"""The command line as a process of its own, for all acceptance tests; what several share beside them is importable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from petal.core.config.checkpointer import CheckpointerConfig

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def petal(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command in an empty folder, with nobody at its stdin."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "petal.cli", *words],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def database(durable_storage: CheckpointerConfig) -> str:
    """What `--db` takes."""
    assert durable_storage.config is not None
    return str(durable_storage.config.get("db_file") or durable_storage.config["connection_string"])
