"""Arguments as plain data, the same in every process, and what LangGraph's savers would not give back."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from petal.core.effects.exactness import loss
from petal.core.effects.records import digest, error_text, plain


class Colour(enum.StrEnum):
    RED = "red"


@dataclass
class Order:
    number: int
    colours: tuple[Colour, ...]


class Client:
    """Says nothing of itself but where it lies."""


class Named(Client):
    def __str__(self) -> str:
        return "the shop"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, None),
        (True, True),
        (1, 1),
        (1.5, 1.5),
        (math.inf, "inf"),
        ("text", "text"),
        (Colour.RED, "Colour: red"),
        (b"abc", "3 bytes ba7816bf8f01cfea"),
        ([1, (2, {3})], [1, [2, [3]]]),
        ({"b": 1, 2: "a"}, {"b": 1, "2": "a"}),
        ({"b", "a"}, ["a", "b"]),
        (Order(1, (Colour.RED,)), {"number": 1, "colours": ["Colour: red"]}),
        (HumanMessage("Hi", id="1"), {"content": "Hi", "additional_kwargs": {}, "response_metadata": {}}),
        (Decimal("1.50"), "decimal.Decimal: 1.50"),
        (PurePosixPath("/a"), "pathlib.PurePosixPath: /a"),
        (Client, f"{__name__}.Client"),
        (Client(), f"{__name__}.Client"),
        (Named(), f"{__name__}.Named: the shop"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arguments_become_plain_data(value: Any, told: Any) -> None:
    found = plain(value)
    if isinstance(value, HumanMessage):
        found = {name: found[name] for name in told}
    assert found == told
    assert digest(found) == digest(plain(value) if not isinstance(value, HumanMessage) else found)


def test_long_errors_are_cut() -> None:
    assert error_text(ValueError("no")) == "ValueError: no"
    assert len(error_text(ValueError("no" * 5000))) == 2001


class Fickle:
    """Equal to nothing but itself."""


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        ((1,), "tuple"),
        ({"a": [(1,)]}, "tuple"),
        ([Colour.RED, {1: 2}], None),
        (HumanMessage("Hi"), None),
        (Order(1, (Colour.RED,)), "tuple"),
        ([math.nan], None),
        (lambda: None, "function"),
    ],
    ids=["tuple", "nested tuple", "plain", "message", "dataclass", "nan", "function"],
)
def test_what_a_saver_of_langgraph_would_lose(value: Any, type_name: str | None) -> None:
    lost = loss(InMemorySaver(), value)
    assert (None if lost is None else lost.type_name) == type_name
