"""Each guarantee names tests that show it, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)), ids="::".join)
def test_a_named_test_exists(file: str, name: str) -> None:
    known: set[str] = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.Assign):
            known |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    assert name in known


def test_every_guarantee_names_its_tests() -> None:
    for guarantee in PAGE.split("\n## ")[1:]:
        promise, _, shown = guarantee.partition("\nShown by")
        assert promise.count("**") == 2
        assert re.search(r"`tests/", shown), promise
    assert len(NAMED) == PAGE.count("`tests/")
