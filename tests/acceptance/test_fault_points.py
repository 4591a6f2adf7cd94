"""A run is killed with SIGKILL at each of its points; what goes on with it loses, repeats and doubles nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("unmeasured")
SCRIPT = Path(__file__).with_name("fault_points.py")
FOUND = re.compile(r"(\d+) points, and the next process ended with 0\n")
LEAST = 100
"""Points that a run has at least; if it had fewer, they would not be counted."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one: what a killed process wrote is there all the same, and sooner."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


def swept(url: str, folder: Path, durability: str, first: int, every: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), url, str(folder), durability, str(first), str(every)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def points(process: subprocess.Popen[str]) -> int:
    """How many points were tried, of which none was told to have broken a promise."""
    with process:
        told = process.communicate(timeout=200)[0]
    whole = FOUND.fullmatch(told)
    assert whole is not None, told
    return int(whole[1])


def test_every_point_of_a_run(folder: Path) -> None:
    """Under "sync": no step again that was finished, no act again that was recorded, and each under one key."""
    halves = [swept("sqlite", folder, "sync", first, every=2) for first in (1, 2)]
    assert sum([points(half) for half in halves]) > LEAST


@pytest.mark.parametrize("durability", ["async", "exit"])
def test_some_points_of_a_run_that_saves_late(folder: Path, durability: str) -> None:
    """Under "async" what is on disk is not run again and acts are recorded; under "exit" the input is kept."""
    assert points(swept("sqlite", folder, durability, 3, every=40)) > LEAST // 40


def test_some_points_of_a_run_on_postgres(folder: Path, postgres_url: str) -> None:
    assert points(swept(postgres_url, folder, "sync", 5, every=40)) > LEAST // 40
