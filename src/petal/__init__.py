"""LangGraph agents that survive: every step is on disk before the next begins."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petal.checkpoints import MemorySaver, PostgresSaver, SqliteSaver, open_checkpointer
    from petal.core.agent import Agent, Thread
    from petal.core.builders.agent import AgentBuilder
    from petal.core.config.agent import AgentConfig, LLMConfig, StepConfig
    from petal.core.config.checkpointer import CheckpointerConfig
    from petal.core.effects.step import astep, idempotency_key, step
    from petal.core.factory import AgentFactory
    from petal.core.steps.history import healthy
    from petal.core.steps.registry import StepRegistry
    from petal.errors import PetalError
    from petal.types.state import ConversationState, DefaultState

__version__ = version("petal")

_HOMES = {
    "Agent": "petal.core.agent",
    "AgentBuilder": "petal.core.builders.agent",
    "AgentConfig": "petal.core.config.agent",
    "AgentFactory": "petal.core.factory",
    "CheckpointerConfig": "petal.core.config.checkpointer",
    "ConversationState": "petal.types.state",
    "DefaultState": "petal.types.state",
    "LLMConfig": "petal.core.config.agent",
    "MemorySaver": "petal.checkpoints",
    "PetalError": "petal.errors",
    "PostgresSaver": "petal.checkpoints",
    "SqliteSaver": "petal.checkpoints",
    "StepConfig": "petal.core.config.agent",
    "StepRegistry": "petal.core.steps.registry",
    "Thread": "petal.core.agent",
    "astep": "petal.core.effects.step",
    "healthy": "petal.core.steps.history",
    "idempotency_key": "petal.core.effects.step",
    "open_checkpointer": "petal.checkpoints",
    "step": "petal.core.effects.step",
}

__all__ = [
    "Agent",
    "AgentBuilder",
    "AgentConfig",
    "AgentFactory",
    "CheckpointerConfig",
    "ConversationState",
    "DefaultState",
    "LLMConfig",
    "MemorySaver",
    "PetalError",
    "PostgresSaver",
    "SqliteSaver",
    "StepConfig",
    "StepRegistry",
    "Thread",
    "__version__",
    "astep",
    "healthy",
    "idempotency_key",
    "open_checkpointer",
    "step",
]


def __getattr__(name: str) -> Any:
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module 'petal' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
