"""A configuration's settings as the arguments of a chat model's class, each of them known to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, ValidationError

from petal.core.config.agent import LLMConfig
from petal.errors import AgentConfigurationError, known_names


def given(config: LLMConfig) -> dict[str, Any]:
    """The settings that were given, the further ones included, without provider and model."""
    named = {name: getattr(config, name) for name in type(config).model_fields if name not in ("provider", "model")}
    return {name: value for name, value in named.items() if value is not None} | (config.model_extra or {})


def require_known(provider: str, settings: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check that the provider has each setting, since a class may drop what it does not know.

    Raises:
        AgentConfigurationError: If there is one that it does not have; the nearest known one is named.
    """
    known = sorted(set(known))
    for name in settings:
        if name not in known:
            raise AgentConfigurationError(
                f"Models of {provider!r} have no setting {name!r}. {known_names(name, known)}"
            )


def own_fields(model: type[BaseChatModel]) -> frozenset[str]:
    """The fields that a class adds to what every chat model has."""
    return frozenset(model.model_fields) - frozenset(BaseChatModel.model_fields)


def accepted_names(model: type[BaseModel]) -> frozenset[str]:
    """Each name under which a class takes a field."""
    by_name = model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
    names = set()
    for name, field in model.model_fields.items():
        if field.alias is None or by_name:
            names.add(name)
        if field.alias is not None:
            names.add(field.alias)
    return frozenset(names)


def refused(provider: str, error: ValidationError) -> AgentConfigurationError:
    """A class's refusal in one sentence a mistake, without the values, since one may be a key."""
    mistakes = error.errors(include_url=False, include_input=False, include_context=False)
    return AgentConfigurationError(
        f"Models of {provider!r} do not take these settings: "
        + " ".join(
            f"{'.'.join(str(part) for part in mistake['loc']) or 'settings'}: "
            f"{mistake['msg'].removeprefix('Value error, ').rstrip('.')}."
            for mistake in mistakes
        )
    )
