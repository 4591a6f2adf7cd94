"""LangGraph's own conformance suite passes on every storage, all of its capabilities."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES

from petal.checkpoints import open_checkpointer
from petal.core.config.checkpointer import CheckpointerConfig


async def test_the_published_suite_passes_whole(storage: CheckpointerConfig) -> None:
    """Every capability is found and every one of its tests passes, with no failure hidden in the report."""

    @checkpointer_test(name=f"petal on {storage.type}")
    async def petal() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        async with open_checkpointer(storage) as saver:
            yield saver

    report = await validate(petal)

    assert {name: result.failures for name, result in report.results.items() if result.failures} == {}
    assert {name for name, result in report.results.items() if result.passed} == {c.value for c in ALL_CAPABILITIES}
