"""Where an agent keeps its state, as a YAML file says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petal.core.config.checkpointer import CheckpointerConfig
from petal.core.yaml.handlers.checkpointer import CheckpointerYAMLHandler
from petal.errors import CheckpointerConfigurationError

GOOD: list[tuple[dict[str, Any], CheckpointerConfig]] = [
    ({}, CheckpointerConfig()),
    ({"type": "memory"}, CheckpointerConfig(type="memory")),
    ({"type": "memory", "enabled": False}, CheckpointerConfig(enabled=False)),
    (
        {"type": "sqlite", "enabled": True, "config": {"db_file": "./data/checkpoints.db"}},
        CheckpointerConfig(type="sqlite", config={"db_file": "./data/checkpoints.db"}),
    ),
    (
        {"type": "postgres", "config": {"connection_string": "postgresql://u:${PETAL_PW}@h/db", "max_size": 4}},
        CheckpointerConfig(type="postgres", config={"connection_string": "postgresql://u:pa$$w@h/db", "max_size": 4}),
    ),
    (
        {"type": "${PETAL_NONE:-sqlite}", "config": {"db_file": "$${x}.db", "busy_timeout": "${PETAL_NONE:-5}"}},
        CheckpointerConfig(type="sqlite", config={"db_file": "${x}.db", "busy_timeout": "5"}),
    ),
]

BAD: list[tuple[Any, str]] = [
    (None, "A checkpointer is a mapping with the keys type, config and enabled."),
    ("sqlite", "A checkpointer is a mapping with the keys type, config and enabled."),
    ({1: "sqlite"}, "A checkpointer is a mapping with the keys type, config and enabled."),
    ({"type": "mysql"}, "'memory', 'sqlite' or 'postgres'"),
    ({"typ": "sqlite"}, "Did you mean 'type'?"),
    ({"type": "sqlite", "config": {"db_fil": "x"}}, "Did you mean 'db_file'?"),
    ({"type": "sqlite", "config": {"db_file": 3}}, "db_file"),
    ({"enabled": "perhaps"}, "enabled"),
    ({"type": "sqlite", "config": {"db_file": "${PETAL_NOT_SET}"}}, "'PETAL_NOT_SET' is not set"),
]


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETAL_PW", "pa$$w")


@pytest.mark.parametrize(("config", "expected"), GOOD)
def test_a_mapping_becomes_a_configuration(config: dict[str, Any], expected: CheckpointerConfig) -> None:
    handler = CheckpointerYAMLHandler()
    assert handler.parse_checkpointer_config(config) == expected
    assert handler.validate_checkpointer_config(config) is True


@pytest.mark.parametrize(("config", "problem"), BAD)
def test_what_cannot_be_parsed_is_not_valid(config: Any, problem: str) -> None:
    handler = CheckpointerYAMLHandler()
    with pytest.raises(CheckpointerConfigurationError) as raised:
        handler.parse_checkpointer_config(config)
    assert problem in str(raised.value)
    assert handler.validate_checkpointer_config(config) is False


def test_the_mapping_stays_as_it_is() -> None:
    config = {"type": "sqlite", "config": {"db_file": "${PETAL_PW}.db"}}
    CheckpointerYAMLHandler(Path("/srv")).parse_checkpointer_config(config)
    assert config == {"type": "sqlite", "config": {"db_file": "${PETAL_PW}.db"}}


@pytest.mark.parametrize(
    ("db_file", "expected"),
    [
        ("runs.db", "/srv/agent/runs.db"),
        ("./data/../runs.db", "/srv/agent/runs.db"),
        ("../runs.db", "/srv/runs.db"),
        ("/var/runs.db", "/var/runs.db"),
        (":memory:", ":memory:"),
        ("~/runs.db", "/home/petal/runs.db"),
    ],
)
def test_a_database_lies_beside_the_file(monkeypatch: pytest.MonkeyPatch, db_file: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/petal")
    handler = CheckpointerYAMLHandler(base=Path("/srv/agent"))
    config = handler.parse_checkpointer_config({"type": "sqlite", "config": {"db_file": db_file, "busy_timeout": 1}})
    assert config.config == {"db_file": expected, "busy_timeout": 1}


def test_other_storages_have_no_path() -> None:
    handler = CheckpointerYAMLHandler(Path("/srv"))
    postgres = {"type": "postgres", "config": {"connection_string": "postgresql://h/db"}}
    assert handler.parse_checkpointer_config(postgres) == CheckpointerConfig(**postgres)
    assert handler.parse_checkpointer_config({"type": "sqlite"}) == CheckpointerConfig(type="sqlite")
