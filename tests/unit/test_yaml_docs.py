"""The reference of the YAML format: each of its blocks loads, and it names each key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from petal.core.yaml.format import schema
from petal.core.yaml.loader import parse_agent, parse_step

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "yaml.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_blocks_load(block: str) -> None:
    """The functions that they name are those of the example."""
    folder = ROOT / "examples" / "agents" / "orders"
    if block.startswith("type:"):
        assert parse_step(block, base=folder).step.name
    else:
        assert parse_agent(block, base=folder).steps


def test_each_key_is_documented() -> None:
    document = schema()
    keys = {key for model in [document, *document["$defs"].values()] for key in model.get("properties", {})}
    assert {"steps", "on_reject", "max_iterations", "busy_timeout", "base_url"} <= keys
    assert sorted(key for key in keys if not re.search(rf"\b{key}\b", TEXT)) == []
