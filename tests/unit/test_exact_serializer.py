"""What LangGraph's serializer wrote is read as it was, and where it would give something plainer, that is told."""

from __future__ import annotations

import json
import pathlib
import re
from collections import deque, namedtuple
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy
import ormsgpack
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Send, TimeoutPolicy
from pydantic import BaseModel, SecretStr, field_validator

from petal.checkpoints.codec import RawValue
from petal.checkpoints.langgraph.exact import UNDECLARED, ExactSerializer
from petal.errors import CheckpointerConfigurationError

THEIRS = JsonPlusSerializer()


@dataclass
class Order:
    item: str


class Colour(Enum):
    RED = "red"


class Shop(BaseModel):
    name: str
    order: Any = None


class Picky(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def positive(cls, number: int) -> int:
        if number < 0:
            raise ValueError("it is below zero")
        return number


Pair = namedtuple("Pair", "left right")


def read(value: Any, *types: type) -> tuple[Any, dict[str, str]]:
    serde = ExactSerializer(types)
    return serde.loads_typed(THEIRS.dumps_typed(value)), serde.problems


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"bytes",
        [HumanMessage("hello"), AIMessage("hi", tool_calls=[{"name": "f", "args": {}, "id": "1"}])],
        Document("text", metadata={"page": 1}),
        {"sends": [Send("node", {"x": 1}), Send("node", 1, timeout=TimeoutPolicy(run_timeout=1.0))]},
        [Interrupt(value={"question": "?"}, id="1"), Command(goto="x", update={"a": 1})],
        _DeltaSnapshot(["a", HumanMessage("b", id="1")]),
        {1, 2, 3},
        (datetime.now(UTC), timedelta(days=1), time(1, 2, tzinfo=UTC), Decimal("1.5"), uuid4(), Path("/tmp")),
        [deque([1, 2]), re.compile("a", re.IGNORECASE)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_safe_comes_back(value: Any) -> None:
    found, problems = read(value)
    assert problems == {}
    assert found == (list(value) if isinstance(value, tuple) and not hasattr(value, "_fields") else value)
    assert type(found) is (list if type(value) is tuple else type(value))


def test_arrays_come_back() -> None:
    """And one that cannot be made is no longer None."""
    found, problems = read(numpy.arange(6).reshape(2, 3))
    assert (found.tolist(), problems) == ([[0, 1, 2], [3, 4, 5]], {})
    serde = ExactSerializer()
    found = serde.loads_typed(("msgpack", ormsgpack.packb(ormsgpack.Ext(6, b"\xc0"))))
    assert isinstance(found, RawValue)
    assert serde.problems == {"numpy.ndarray": "it cannot be read"}


def test_own_types_come_back_if_they_are_given() -> None:
    """Nested ones too; without, what was saved stands in their place and the types are told."""
    value = [Order("x"), Colour.RED, Shop(name="a"), Pair(1, 2), SecretStr("s")]
    assert read(value, Order, Colour, Shop, Pair, SecretStr) == (value, {})
    found, problems = read({"deep": [(Order("x"),)]})
    assert found == {"deep": [[RawValue(f"{__name__}.Order", {"item": "x"})]]}
    assert problems == {f"{__name__}.Order": UNDECLARED}
    assert read(SecretStr("s"))[1] == {"pydantic.types.SecretStr": UNDECLARED}


def test_models_that_would_refuse_their_own_data_are_made_without_asking() -> None:
    """As LangGraph does it."""
    value = Picky.model_construct(number=-1)
    found, problems = read(value, Picky)
    assert (found.number, problems) == (-1, {})


def test_models_of_pydantics_first_version_too() -> None:
    class First:
        def __init__(self, number: int) -> None:
            raise ValueError(number)

        @classmethod
        def construct(cls, number: int) -> Any:
            made = cls.__new__(cls)
            made.number = number  # type: ignore[attr-defined]
            return made

    data = ormsgpack.packb(ormsgpack.Ext(4, ormsgpack.packb((First.__module__, "First", {"number": 1}))))
    serde = ExactSerializer([First])
    assert serde.loads_typed(("msgpack", data)).number == 1
    assert serde.problems == {}


def test_what_has_changed_is_told() -> None:
    class Other:
        pass

    Other.__module__, Other.__name__ = Order.__module__, "Order"
    found, problems = read(Order("x"), Other)
    assert found == RawValue(f"{__name__}.Order", {"item": "x"})
    assert problems[f"{__name__}.Order"].startswith("it cannot be made again (TypeError: ")


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        (3, ["datetime", "datetime", "2026-01-01", "strptime"]),
        (9, ["datetime", "date", [2026, 1, 1]]),
        (0, ["pathlib", "WindowsPath", "C:"]),
        (0, ["collections", "Nothing", "C:"]),
    ],
)
def test_what_is_never_made_is_told(code: int, parts: list[Any]) -> None:
    serde = ExactSerializer()
    found = serde.loads_typed(("msgpack", ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))))
    assert isinstance(found, RawValue)
    assert list(serde.problems) == [f"{parts[0]}.{parts[1]}"]


def test_a_module_that_has_moved_is_found() -> None:
    data = ormsgpack.packb(ormsgpack.Ext(1, ormsgpack.packb(["pathlib._local", "PosixPath", ["/", "tmp"]])))
    assert ExactSerializer().loads_typed(("msgpack", data)) == pathlib.PosixPath("/tmp")


def test_nothing_else_is_imported_or_called() -> None:
    data = ormsgpack.packb(ormsgpack.Ext(0, ormsgpack.packb(["os", "system", "false"])))
    serde = ExactSerializer()
    assert serde.loads_typed(("msgpack", data)) == RawValue("os.system", "false")
    assert serde.problems == {"os.system": UNDECLARED}


def envelope(*id: str, **more: Any) -> bytes:
    return json.dumps({"x": {"lc": 2, "type": "constructor", "id": list(id), **more}, "plain": {"lc": 1}}).encode()


def test_the_json_of_older_versions_is_read_exactly_too() -> None:
    serde = ExactSerializer([Order])
    module = Order.__module__.split(".")
    found = serde.loads_typed(("json", envelope(*module, "Order", kwargs={"item": "x"})))
    assert found == {"x": Order("x"), "plain": {"lc": 1}}
    assert serde.problems == {}
    for id, more in (
        (("os", "system"), {"args": ["false"]}),
        (("datetime", "datetime"), {"args": ["2026-01-01"], "method": "fromisoformat"}),
    ):
        assert isinstance(serde.loads_typed(("json", envelope(*id, **more)))["x"], RawValue)
        assert list(serde.problems) == [".".join(id)]
        serde.problems.clear()
    assert isinstance(serde.loads_typed(("json", b'{"lc": 1, "type": "not_implemented", "id": ["a", "B"]}')), RawValue)
    assert list(serde.problems) == ["a.B"]


def test_two_types_of_one_name_cannot_be_told_apart() -> None:
    class Outer:
        class Order:
            pass

    assert ExactSerializer([Order, Order]).problems == {}
    with pytest.raises(CheckpointerConfigurationError, match="under one name"):
        ExactSerializer([Order, Outer.Order])
