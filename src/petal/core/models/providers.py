"""The providers of LangChain's `init_chat_model`: which there are, and how a model of each is built."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr, ValidationError

from petal.core.config.agent import LLMConfig
from petal.core.models.settings import accepted_names, given, refused, require_known
from petal.errors import (
    AgentConfigurationError,
    ModelError,
    ModelKeyMissingError,
    ModelPackageMissingError,
    UnknownModelError,
)

OWN = ("demo", "local")
"""Providers that are Petal's own."""
EXTRAS = {"langchain-openai": "openai", "langchain-anthropic": "anthropic", "langchain-ollama": "ollama"}
"""Package -> the extra of Petal that brings it."""
OTHER_NAMES: Mapping[str, Mapping[str, str]] = {"ollama": {"max_tokens": "num_predict"}}
"""Provider -> our name of a setting -> the class's own, where the class has no alias for it."""
UNCHECKED = frozenset({"huggingface"})
"""Providers whose factory hands settings on to one of several classes, which refuse what they do not know."""
MODEL_NAMES = frozenset({"model", "model_name", "model_id"})

_KEY_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9_]*_API_KEY\b")


def known() -> tuple[str, ...]:
    """Names of all providers, Petal's own first."""
    return (*OWN, *sorted(_registry()))


def identified(config: LLMConfig) -> tuple[str, str]:
    """Provider and model of a configuration; LangChain infers a provider that is not given.

    Raises:
        UnknownModelError: If there is no such provider, or none can be inferred.
    """
    provider, model = config.provider, config.model
    if not provider:
        prefix, colon, rest = model.partition(":")
        if colon and _is_known(prefix):
            provider, model = prefix, rest
        else:
            provider = _inferred(model)
    if provider is None or not _is_known(provider):
        raise UnknownModelError(provider or config.model, known())
    return _normal(provider), model


def check(provider: str, model: str) -> None:
    """Check that the provider's package is installed, without importing it.

    Raises:
        ModelPackageMissingError: If it is not.
        AgentConfigurationError: If no model is named.
    """
    if not model:
        raise AgentConfigurationError(f"No model of {provider!r} is named; write e.g. '{provider}:name-of-a-model'.")
    module, _ = _registry()[provider]
    if find_spec(module.partition(".")[0]) is None:
        raise _missing(provider, module)


def opened(provider: str, model: str, config: LLMConfig) -> BaseChatModel:
    """A model of one of LangChain's providers; see `petal.core.models.open_model`."""
    check(provider, model)
    settings = {OTHER_NAMES.get(provider, {}).get(name, name): value for name, value in given(config).items()}
    if provider not in UNCHECKED:
        require_known(provider, settings, _accepted(provider))

    from langchain.chat_models import init_chat_model

    try:
        chat: BaseChatModel = init_chat_model(model, model_provider=provider, **{**_own_clients(provider), **settings})
    except ValidationError as error:
        _require_key(provider, config, str(error.errors(include_url=False, include_input=False)))
        raise refused(provider, error) from None
    except ImportError as error:
        raise _missing(provider, error.name or _registry()[provider][0]) from error
    except Exception as error:
        # Each provider's client has an error class of its own for a missing key.
        text = _without_key(str(error), config)
        _require_key(provider, config, text)
        raise ModelError(f"{provider}:{model} cannot be built: {type(error).__name__}: {text}") from None
    _require_filled_key(provider, chat)
    return chat


async def aclose(chat: BaseChatModel) -> None:
    """Close the clients that a model of `opened` has to itself."""
    own: Any = getattr(chat, "http_async_client", None), getattr(chat, "http_client", None)
    if own[0] is not None:
        await own[0].aclose()
    if own[1] is not None:
        own[1].close()


def _own_clients(provider: str) -> dict[str, Any]:
    """HTTP clients for one model: those that LangChain makes are shared by all models and event loops."""
    if _registry()[provider][0] != "langchain_openai":
        return {}
    from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

    return {"http_client": DefaultHttpxClient(), "http_async_client": DefaultAsyncHttpxClient()}


def _registry() -> dict[str, tuple[str, str]]:
    """Provider -> module and class, from LangChain's own table: it has no public way to ask for it."""
    from langchain.chat_models.base import _BUILTIN_PROVIDERS

    return {name: (module, class_name) for name, (module, class_name, _) in _BUILTIN_PROVIDERS.items()}


def _inferred(model: str) -> str | None:
    from langchain.chat_models.base import _attempt_infer_model_provider

    return _attempt_infer_model_provider(model)


def _is_known(provider: str) -> bool:
    return _normal(provider) in OWN or _normal(provider) in _registry()


def _normal(provider: str) -> str:
    return provider.replace("-", "_").lower()


def _accepted(provider: str) -> frozenset[str]:
    """The settings that the provider's class has a field for."""
    module, class_name = _registry()[provider]
    try:
        model = getattr(importlib.import_module(module), class_name)
    except ImportError as error:
        raise _missing(provider, error.name or module) from error
    return accepted_names(model) - MODEL_NAMES


def _missing(provider: str, module: str) -> ModelPackageMissingError:
    package = module.partition(".")[0].replace("_", "-")
    extra = EXTRAS.get(package)
    return ModelPackageMissingError(
        provider, package, f"pip install 'petal[{extra}]'" if extra else f"pip install {package}"
    )


def _require_key(provider: str, config: LLMConfig, problem: str) -> None:
    """Raise ModelKeyMissingError if the problem is that no key was given."""
    if config.api_key is not None:
        return
    if found := _KEY_VARIABLE.search(problem):
        raise ModelKeyMissingError(provider, found[0]) from None
    if "api_key" in problem:
        raise ModelKeyMissingError(provider, f"{provider.upper()}_API_KEY") from None


def _require_filled_key(provider: str, chat: BaseChatModel) -> None:
    """Raise ModelKeyMissingError if a class left its key empty, to fail at the first request only."""
    headers = {name.lower() for name in getattr(chat, "default_headers", None) or ()}
    if headers & {"authorization", "x-api-key"} or f"{provider.upper()}_CUSTOM_HEADERS" in os.environ:
        return
    for field, variable in chat.lc_secrets.items():
        value: Any = getattr(chat, field, None)
        if variable.endswith("_API_KEY") and isinstance(value, SecretStr) and not value.get_secret_value():
            raise ModelKeyMissingError(provider, variable)


def _without_key(text: str, config: LLMConfig) -> str:
    key = config.api_key.get_secret_value() if config.api_key is not None else ""
    return text.replace(key, "***") if key else text
