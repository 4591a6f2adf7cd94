"""A chat model that is built when it is first needed, since building one may want a key or a package."""

from __future__ import annotations

import asyncio
import threading
import weakref

from langchain_core.language_models import BaseChatModel

from petal.core.config.agent import LLMConfig
from petal.core.models import open_model, providers


class ModelSource:
    """A model for each event loop that asks for it, or the one ready model that was given.

    A provider's client keeps connections that only work in the loop that opened them; one client for all
    loops fails with "Event loop is closed" as soon as the first has ended.
    """

    def __init__(self, config: LLMConfig | BaseChatModel) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._models: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, BaseChatModel] = weakref.WeakKeyDictionary()
        self._loopless: BaseChatModel | None = None

    def get(self, loop: asyncio.AbstractEventLoop | None = None) -> BaseChatModel:
        """The model for a loop; default: the running one, if any.

        Raises:
            ModelError: If its provider is unknown, its package missing or its key not set.
        """
        if isinstance(self._config, BaseChatModel):
            return self._config
        loop = loop or running_loop()
        with self._lock:
            model = self._loopless if loop is None else self._models.get(loop)
            if model is None:
                model = open_model(self._config)
                if loop is None:
                    self._loopless = model
                else:
                    self._models[loop] = model
            return model

    async def aclose(self) -> None:
        """Close the clients of the running loop's model, and of the one that no loop asked for."""
        with self._lock:
            models = [self._models.pop(asyncio.get_running_loop(), None), self._loopless]
            self._loopless = None
        for model in models:
            if model is not None and not self._brings_clients:
                await providers.aclose(model)

    @property
    def _brings_clients(self) -> bool:
        """Whether the configuration holds HTTP clients, which belong to whoever made them."""
        extra = (self._config.model_extra if isinstance(self._config, LLMConfig) else None) or {}
        return "http_client" in extra or "http_async_client" in extra


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
