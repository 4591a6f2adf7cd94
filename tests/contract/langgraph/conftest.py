"""Every storage with LangGraph's own tables in it, for the tests of the adapter."""

from __future__ import annotations

import pytest

from petal.core.config.checkpointer import CheckpointerConfig


def _with_langgraphs_tables(config: CheckpointerConfig) -> CheckpointerConfig:
    return CheckpointerConfig(type=config.type, config={**(config.config or {}), "engine": "langgraph"})


@pytest.fixture
def storage_url(postgres_url: str) -> str:
    """A database without Petal's tables."""
    return postgres_url


@pytest.fixture
def storage(storage: CheckpointerConfig) -> CheckpointerConfig:
    """Every storage in turn, each with a fresh place."""
    return _with_langgraphs_tables(storage)


@pytest.fixture
def durable_storage(durable_storage: CheckpointerConfig) -> CheckpointerConfig:
    """Every storage that outlives a process in turn, each with a fresh place."""
    return _with_langgraphs_tables(durable_storage)
