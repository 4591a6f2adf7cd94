"""The JSON Schema that editors complete and check a YAML file with."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from petal.core.yaml import format as yaml_format
from petal.core.yaml.document import read
from petal.core.yaml.format import BUILT_IN, schema

EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"

PLANNED: dict[str, Any] = {
    "name": "conversational_agent",
    "state_type": "ConversationState",
    "checkpointer": {"type": "sqlite", "enabled": True, "config": {"db_file": "./data/checkpoints.db"}},
    "steps": [
        {
            "type": "llm",
            "name": "chat",
            "config": {
                "provider": "openai",
                "model": "gpt-4",
                "prompt_template": "You are a helpful assistant. {input}",
            },
        }
    ],
}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    document = schema()
    Draft202012Validator.check_schema(document)
    return Draft202012Validator(document)


def with_value(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(PLANNED)
    part: Any = document
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return document


def test_it_is_plain_json() -> None:
    document = schema()
    assert json.loads(json.dumps(document)) == document
    assert "$id" not in document
    assert document == schema()


def test_the_specification_fits(validator: Draft202012Validator) -> None:
    validator.validate(PLANNED)
    validator.validate({**PLANNED, "name": "persistent_agent", "state_type": "DefaultState"})


@pytest.mark.parametrize("path", [EXAMPLES / "chat.yaml", *EXAMPLES.rglob("*agent.yaml")], ids=lambda p: p.name)
def test_the_examples_fit(validator: Draft202012Validator, path: Path) -> None:
    """As they are written, which is what an editor sees."""
    document = read(path.read_text(), path)
    for place, text in document.written.items():
        part = document.value
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = text
    validator.validate(document.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("llm",), "demo:"),
        (("llm",), {"provider": "openai", "model": "gpt-4", "seed": 7}),
        (("checkpointer",), "sqlite:///x.db"),
        (("checkpointer",), {"type": "postgres", "config": {"connection_string": "x", "schema": "y", "max_size": 3}}),
        (("checkpointer", "enabled"), "${ON}"),
        (("checkpointer", "config", "busy_timeout"), "${T:-5}"),
        (("tools",), {"a": "x:y", "b": {"function": "x:y", "description": "z"}}),
        (("steps", 0, "retry"), 3),
        (("steps", 0, "retry"), "${N}"),
        (("steps", 0, "retry"), {"attempts": 3, "on": ["TimeoutError"]}),
        (("steps", 0, "approval"), True),
        (("steps", 0, "approval"), "Sure?"),
        (("steps", 0, "approval"), {"on_reject": "skip"}),
        (("steps", 0, "timeout"), 1.5),
        (("steps", 0, "next"), "END"),
        (("steps", 0, "condition"), {"key": "x", "routes": {"yes": "END"}}),
        (("steps", 0, "config", "temperature"), 0.5),
        (("steps", 0), {"type": "react", "name": "a", "config": {"max_iterations": 3, "tools": ["x"]}}),
        (("steps", 0), {"type": "tool", "name": "a", "config": {"tools": ["x"]}}),
        (("steps", 0), {"type": "custom", "name": "a", "config": {"function": "x:y", "arguments": {"b": 1}}}),
        (("steps", 0), {"type": "vote", "name": "a", "config": {"anything": [1]}}),
    ],
)
def test_what_the_format_allows_fits(validator: Draft202012Validator, place: tuple[Any, ...], value: Any) -> None:
    validator.validate(with_value(place, value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("nmae",), "x"),
        (("steps",), []),
        (("state_schema",), {"a": "int"}),
        (("checkpointer", "typ"), "sqlite"),
        (("checkpointer", "type"), "mysql"),
        (("checkpointer", "config", "db_fil"), "x"),
        (("checkpointer", "enabled"), "maybe"),
        (("tools",), {"a": {"function": "x:y", "descripton": "z"}}),
        (("steps", 0, "tiemout"), 3),
        (("steps", 0, "timeout"), 0),
        (("steps", 0, "retry"), {"attempts": 0}),
        (("steps", 0, "condition"), {"key": "x", "routes": {}}),
        (("steps", 0, "config", "provder"), "x"),
        (("steps", 0, "config", "temperature"), "hot"),
        (("steps", 0), {"type": "tool", "name": "a"}),
        (("steps", 0), {"type": "custom", "name": "a", "config": {}}),
        (("steps", 0), {"type": "llm"}),
        (("steps", 0), {"name": "a"}),
    ],
)
def test_what_the_format_refuses_does_not_fit(
    validator: Draft202012Validator, place: tuple[Any, ...], value: Any
) -> None:
    assert not validator.is_valid(with_value(place, value))


def test_editors_complete_the_built_in_kinds() -> None:
    kinds = [
        step["properties"]["type"].get("const") for name, step in schema()["$defs"].items() if name.endswith("Step")
    ]
    assert sorted(kind for kind in kinds if kind is not None) == sorted(BUILT_IN)


def test_each_key_of_the_format_is_described() -> None:
    document = schema()
    own = {
        name for name, model in vars(yaml_format).items() if getattr(model, "__module__", "") == yaml_format.__name__
    }
    missing = [
        f"{name}.{key}"
        for name, model in [("AgentFile", document), *document["$defs"].items()]
        if name in own
        for key, field in model["properties"].items()
        if key in vars(yaml_format)[name].__annotations__ and not {"description", "const"} & set(field)
    ]
    assert missing == []


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _parts(inner)


def test_every_reference_leads_somewhere() -> None:
    document = schema()
    references = {part["$ref"] for part in _parts(document) if "$ref" in part}
    assert references <= {f"#/$defs/{name}" for name in document["$defs"]}
    assert "#/$defs/Expansion" in references
