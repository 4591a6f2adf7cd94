"""The command line as a process of its own, for all acceptance tests; what several share beside them is importable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from petal.core.config.checkpointer import CheckpointerConfig

sys.path.insert(0, str(Path(__file__).parent))

from nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts processes that have imported what they need; see there."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def petal(nursery: Nursery, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command in an empty folder, with nobody at its stdin unless it is given a text."""

    def run(*words: str, text: str | bytes = "", **variables: str) -> subprocess.CompletedProcess[str]:
        command, env = ["-m", "petal.cli", *words], {**os.environ, "COLUMNS": "200", **variables}
        if any(name.startswith("PYTHON") for name in variables):  # which only a new interpreter reads
            assert not text
            new = [sys.executable, *command]
            return subprocess.run(new, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        return nursery.run(command, tmp_path, env, text)

    return run


@pytest.fixture
def database(durable_storage: CheckpointerConfig) -> str:
    """What `--db` takes."""
    assert durable_storage.config is not None
    return str(durable_storage.config.get("db_file") or durable_storage.config["connection_string"])
