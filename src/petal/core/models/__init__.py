"""Chat models by name: LangChain's providers, a demo that needs no key, and GGUF files on this machine."""

from __future__ import annotations

from langchain_core.language_models import BaseChatModel

from petal.core.config.agent import LLMConfig
from petal.core.models import demo, local, providers
from petal.core.models.demo import DemoChatModel
from petal.core.models.local import LocalChatModel

__all__ = ["DemoChatModel", "LocalChatModel", "check_model", "open_model"]


def open_model(config: LLMConfig) -> BaseChatModel:
    """The chat model that a configuration names; every setting that is given reaches it.

    - `demo` takes `max_tokens` (words of an answer at most).
    - `local` takes `temperature`, `max_tokens` and the other fields of `LocalChatModel`, e.g. `context_size`.
    - Any other provider takes what its LangChain class has a field for.

    Raises:
        UnknownModelError: If there is no such provider, or none can be inferred from the model's name.
        ModelPackageMissingError: If the provider's package is not installed.
        ModelKeyMissingError: If the provider wants a key.
        AgentConfigurationError: If no model is named, or the provider has no such setting or value.
        ModelError: If the model cannot be had for another reason, e.g. there is no such file.
    """
    provider, model = providers.identified(config)
    match provider:
        case "demo":
            return demo.opened(model, config)
        case "local":
            return local.opened(model, config)
        case _:
            return providers.opened(provider, model, config)


def check_model(config: LLMConfig) -> None:
    """Cheaply check that a model can be had: its provider is known and its package, or its file, is there.

    Neither the model nor a key is needed, and the provider's package is not imported.

    Raises:
        UnknownModelError: If there is no such provider, or none can be inferred from the model's name.
        ModelPackageMissingError: If the provider's package is not installed.
        AgentConfigurationError: If no model is named.
        ModelError: If a local model's file is not there.
    """
    provider, model = providers.identified(config)
    match provider:
        case "demo":
            return
        case "local":
            local.check(model)
        case _:
            providers.check(provider, model)
