"""`petal.checkpoints` is a thin front: what it imports, what it picks, what it refuses."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import pytest

import petal.checkpoints
from petal.checkpoints import (
    MemorySaver,
    PostgresSaver,
    SqliteSaver,
    ThreadInfo,
    convert,
    database_status,
    open_checkpointer,
    upgrade_database,
)
from petal.checkpoints.langgraph.adapter import LangGraphSaver
from petal.core.config.checkpointer import CheckpointerConfig
from petal.errors import CheckpointerConfigurationError

URL = "postgresql://me:hunter2@127.0.0.1:1/d"


@pytest.mark.usefixtures("unmeasured")
def test_a_driver_is_imported_when_it_is_first_used() -> None:
    """Neither the package nor a saver of another storage imports sqlite3 or psycopg."""
    program = """
import sys, petal.checkpoints
def drivers(): return [name for name in ("sqlite3", "psycopg", "psycopg_pool", "langgraph") if name in sys.modules]
assert drivers() == [], drivers()
petal.checkpoints.MemorySaver()
assert drivers() == ["langgraph"], drivers()
petal.checkpoints.SqliteSaver("petal.db")
assert drivers() == ["sqlite3", "langgraph"], drivers()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_missing_driver_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the saver is made, not when it is used."""
    for name in [name for name in sys.modules if name.startswith("petal.checkpoints.") and "postgres" in name]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(name, raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for engine in ("petal", "langgraph"):
        with pytest.raises(CheckpointerConfigurationError, match=r"pip install 'petal\[postgres\]'") as caught:
            open_checkpointer(URL, engine=engine)
        assert isinstance(caught.value.__cause__, ImportError)


def test_the_front_knows_its_names() -> None:
    """Those, and no others."""
    assert dir(petal.checkpoints) == [
        "CheckpointInfo",
        "Conversion",
        "DatabaseStatus",
        "MemorySaver",
        "PetalSaver",
        "PostgresSaver",
        "Progress",
        "Retention",
        "RetentionReport",
        "SqliteSaver",
        "ThreadInfo",
        "ThreadsNotConvertedError",
        "convert",
        "database_status",
        "open_checkpointer",
        "types_in",
        "upgrade_database",
    ]
    assert ThreadInfo.__module__ == "petal.checkpoints.threads"
    with pytest.raises(AttributeError, match=r"module 'petal\.checkpoints' has no attribute 'RedisSaver'"):
        petal.checkpoints.RedisSaver  # noqa: B018


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ("memory://", MemorySaver),
        (CheckpointerConfig(), MemorySaver),
        ("sqlite:///a.db", SqliteSaver),
        (CheckpointerConfig(type="sqlite", config={"db_file": "a.db"}), SqliteSaver),
        (URL, PostgresSaver),
        (CheckpointerConfig(type="postgres", config={"connection_string": URL}), PostgresSaver),
    ],
)
def test_a_config_and_a_url_pick_the_saver(config: CheckpointerConfig | str, kind: type[LangGraphSaver]) -> None:
    """And their options, with those given beside them, reach it."""
    saver = open_checkpointer(config, durability="async")
    assert type(saver) is kind
    assert saver.durability == "async"
    assert open_checkpointer(config).durability == "sync"


def test_options_beside_a_config_win() -> None:
    """The config itself is not changed."""
    config = CheckpointerConfig(type="sqlite", config={"db_file": "a.db", "durability": "exit"})
    assert open_checkpointer(config, db_file="b.db").where == "sqlite:///b.db"
    assert open_checkpointer(config, db_file="b.db").durability == "exit"
    assert config.where == "sqlite:///a.db"


def test_what_cannot_be_opened_is_refused() -> None:
    """A disabled config, a missing option, an unknown one."""
    with pytest.raises(CheckpointerConfigurationError, match=r"disabled \(enabled=False\)"):
        open_checkpointer(CheckpointerConfig(enabled=False))
    with pytest.raises(CheckpointerConfigurationError, match="disabled"):
        open_checkpointer(CheckpointerConfig(enabled=False), durability="exit")
    with pytest.raises(
        CheckpointerConfigurationError, match=r"^SQLite checkpointer requires configuration \(db_file\)$"
    ):
        open_checkpointer(CheckpointerConfig(type="sqlite"))
    wrong: Any
    for wrong in (None, 3, {"type": "memory"}):
        for use in (open_checkpointer, database_status, upgrade_database, partial(convert, "memory://")):
            with pytest.raises(
                CheckpointerConfigurationError, match=f"a CheckpointerConfig, not by {type(wrong).__name__}"
            ):
                use(wrong)
    with pytest.raises(CheckpointerConfigurationError, match="Did you mean 'busy_timeout'"):
        SqliteSaver("a.db", busy_timout=3)
    with pytest.raises(CheckpointerConfigurationError, match="on_decode_error is 'raise' or 'raw', not 'rwa'"):
        MemorySaver(on_decode_error="rwa")  # type: ignore[arg-type]
    with pytest.raises(CheckpointerConfigurationError, match="has no option 'db_file'"):
        MemorySaver(db_file="a.db")
    with pytest.raises(CheckpointerConfigurationError, match="Did you mean 'max_size'"):
        PostgresSaver(URL, maxsize=3)
