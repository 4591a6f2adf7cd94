"""Petal's own saver on every storage, for the tests beside it, and what they save made importable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from petal.checkpoints import open_checkpointer
from petal.checkpoints.saver import PetalSaver
from petal.core.config.checkpointer import CheckpointerConfig

sys.path.insert(0, str(Path(__file__).parent))
from shop import Colour, Order


@pytest.fixture
def saver(storage: CheckpointerConfig) -> Iterator[PetalSaver]:
    opened = open_checkpointer(storage, allow=[Order, Colour])
    assert isinstance(opened, PetalSaver)
    with opened:
        yield opened
