"""What cannot come back exactly is refused when it is saved, and what is no longer what it was when it is read."""

from __future__ import annotations

import json
import pickle
import re
import threading
import typing
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, make_dataclass
from datetime import datetime, tzinfo
from enum import Enum, IntEnum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy
import ormsgpack
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel, SecretStr, create_model

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec, RawValue, ValueNotSavableError
from petal.checkpoints.codec import forms as codes
from petal.errors import CheckpointCorruptionError, CheckpointerError

CODEC = Codec(Allowlist())


@dataclass
class Stranger:
    n: int = 0


class StrangeText(str):
    pass


class StrangeLevel(IntEnum):
    LOW = 1


class StrangeDict(dict[str, int]):
    pass


class StrangePair(NamedTuple):
    a: int


class StrangeModel(BaseModel):
    n: int = 0


class StrangeMessage(HumanMessage):
    pass


class Zone(tzinfo):
    pass


class Pickled:
    def __getstate__(self) -> dict[str, Any]:
        return {}


class Queue(deque[int]):
    pass


class Flaky(dict[str, int]):
    def items(self) -> Any:
        raise AssertionError("nobody's code runs when a value is saved")


def _keyless() -> ZoneInfo:
    with open("/usr/share/zoneinfo/UTC", "rb") as file:
        return ZoneInfo.from_file(file)


UNDECLARED = [
    Stranger(),
    StrangeText("x"),
    StrangeLevel.LOW,
    StrangeDict(),
    StrangePair(1),
    StrangeModel(),
    StrangeMessage("x"),
    SecretStr("x"),
    Zone(),
    Queue(),
    threading.Lock(),
    json.JSONDecoder(),
]
REFUSED: list[tuple[Any, str]] = [
    *((value, "declared") for value in UNDECLARED),
    (ValueError("x"), "exception"),
    (memoryview(b"x"), "bytes"),
    (ormsgpack.Ext(8, b"\x90"), "bytes"),
    (ormsgpack.Fragment(b"\xc0"), "bytes"),
    (object(), "bare object"),
    (lambda: None, "declared"),
    (len, "declared"),
    (Stranger, "declared"),
    ((n for n in ()), "declared"),
    (defaultdict(lambda: 1), "factory"),
    (defaultdict(Stranger), "factory"),
    (numpy.array([None]), "Python objects"),
    (numpy.ma.masked_array([1]), "declared"),
    (numpy.zeros(1, {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 8]}), "dtype"),
    (numpy.zeros(1, numpy.dtype("i4", metadata={"a": 1})), "dtype"),
    (datetime(2024, 1, 1, tzinfo=Zone()), "declared"),
    (_keyless(), "no key"),
    (vars(typing)["List"][int], "arguments"),
]


def _places(value: Any) -> list[tuple[Any, str]]:
    places = [
        (value, ""),
        ([1, value], "[1]"),
        ({"a": {"b": [value]}}, "['a']['b'][0]"),
        ({1: value}, "[1]"),
        ((1, (value,)), "[1][0]"),
        (["\ud800", value], "[1]"),
        ([HumanMessage("x"), AIMessage("x", response_metadata={"m": value})], "[1].response_metadata['m']"),
        (OrderedDict(a=value), ""),
    ]
    return places


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=lambda part: type(part).__name__)
def test_a_value_that_would_not_come_back_is_refused_wherever_it_stands(value: Any, reason: str) -> None:
    for whole, path in _places(value):
        with pytest.raises(ValueNotSavableError) as caught:
            CODEC.encode(whole, "channel 'messages'")
        assert caught.value.where == "channel 'messages'"
        assert reason in caught.value.reason
        assert caught.value.reason.startswith(f"at {path}" if path else ""), caught.value.reason


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(ValueNotSavableError) as caught:
        CODEC.encode({"items": [Stranger()]}, "channel 'cart'")
    assert str(caught.value) == (
        f"channel 'cart' holds a {__name__}.Stranger that cannot be saved: at ['items'][0], its type is not declared; "
        "name it in the annotations of the state, or pass allow=[Stranger]."
    )
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.args, str(again)) == (ValueNotSavableError, caught.value.args, str(caught.value))
    assert isinstance(again, CheckpointerError)
    assert isinstance(again, TypeError)


@pytest.mark.parametrize(
    ("cls", "reason"),
    [(Pickled, "pickled"), (Queue, "made in C"), (threading.local, "made in C"), (ValueError, "made in C")],
)
def test_a_declared_class_that_holds_more_than_attributes_is_refused(cls: type, reason: str) -> None:
    codec = Codec(Allowlist().adding(cls))
    with pytest.raises(ValueNotSavableError, match=reason):
        codec.encode(cls())


def test_a_class_of_the_same_name_as_a_declared_one_is_refused() -> None:
    twin = type("Stranger", (), {"__module__": __name__})
    codec = Codec(Allowlist().adding(Stranger))
    with pytest.raises(ValueNotSavableError, match="another type of the same name"):
        codec.encode(twin())


def test_no_code_of_a_value_runs_when_it_is_saved_or_read() -> None:
    codec = Codec(Allowlist().adding(Flaky))
    value = codec.decode(codec.encode(Flaky(a=1)))
    assert type(value) is Flaky
    assert dict.items(value) == {"a": 1}.items()


def test_a_pattern_that_prints_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pattern = re.compile("a", re.DEBUG)
    capsys.readouterr()
    with pytest.raises(ValueNotSavableError, match="DEBUG"):
        CODEC.encode(pattern)


def test_a_message_that_was_never_filled_is_refused() -> None:
    with pytest.raises(ValueNotSavableError, match="cannot be taken apart"):
        CODEC.encode([HumanMessage.__new__(HumanMessage)])


def test_a_member_that_its_enum_does_not_know_is_refused() -> None:
    stray = object.__new__(_Colour)
    stray._name_, stray._value_ = "GREEN", 3
    with pytest.raises(ValueNotSavableError, match="none of its members"):
        Codec(Allowlist().adding(_Colour)).encode(stray)


def _cycles() -> list[Any]:
    in_list: list[Any] = []
    in_list.append({"x": in_list})
    in_dict: dict[Any, Any] = {}
    in_dict[1] = (in_dict,)
    message = HumanMessage("x")
    message.additional_kwargs["self"] = message
    held = Stranger()
    held.n = [held]  # type: ignore[assignment]
    in_deque: deque[Any] = deque()
    in_deque.append(in_deque)
    return [in_list, in_dict, message, held, in_deque]


@pytest.mark.parametrize("value", _cycles(), ids=lambda value: type(value).__name__)
def test_a_value_that_contains_itself_is_refused(value: Any) -> None:
    codec = Codec(Allowlist().adding(Stranger))
    with pytest.raises(ValueNotSavableError, match="contains itself"):
        codec.encode(value)


def test_a_bottomless_value_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueNotSavableError, match="too deeply"):
        CODEC.encode(deep, "channel 'x'")


def test_one_object_in_two_places_is_no_cycle() -> None:
    shared = {"\ud800": [1]}
    assert CODEC.decode(CODEC.encode([shared, shared, (shared,)])) == [shared, shared, (shared,)]


def test_an_exception_is_kept_as_its_text() -> None:
    """As LangGraph keeps it."""
    assert CODEC.decode(CODEC.encode_error(ValueError("no"))) == "ValueError('no')"


def _named(cls: type, name: str = "Item") -> type:
    cls.__module__, cls.__qualname__, cls.__name__ = "app", name, name
    return cls


class _Colour(Enum):
    RED = 1


class _Paler(Enum):
    PINK = 1


class _Renumbered(Enum):
    RED = 2


class _Slots:
    __slots__ = ("a",)


class _OtherSlots:
    __slots__ = ("b",)


def _slots() -> Any:
    value = _Slots()
    value.a = 1
    return value


class _Pair(NamedTuple):
    a: int


class _Triple(NamedTuple):
    a: int
    b: int


class _Private(BaseModel):
    n: int = 0
    _secret: int = 0


class _Open(BaseModel, extra="allow"):
    n: int = 0


class _Text(str):
    pass


class _Number(int):
    pass


CHANGES: list[tuple[type, Any, type | None, str, Any]] = [
    (make_dataclass("Item", ["a"]), lambda cls: cls(1), None, "not declared", {"a": 1}),
    (
        make_dataclass("Item", ["a"]),
        lambda cls: cls(1),
        make_dataclass("Item", ["b"]),
        "it had a and it has b",
        {"a": 1},
    ),
    (make_dataclass("Item", ["a"]), lambda cls: cls(1), make_dataclass("Item", ["a", "b"]), "has b now", {"a": 1}),
    (make_dataclass("Item", ["a"]), lambda cls: cls(1), create_model("Item", a=(int, 0)), "another kind", {"a": 1}),
    (create_model("Item", a=(int, 0)), lambda cls: cls(a=1), create_model("Item", b=(int, 0)), "had a", {"a": 1}),
    (create_model("Item", n=(int, 0)), lambda cls: cls(n=1), _Private, "has _secret now", {"n": 1}),
    (_Private, lambda cls: cls(n=1), create_model("Item", n=(int, 0)), "had _secret", {"n": 1}),
    (_Open, lambda cls: cls(n=1, x=2), create_model("Item", n=(int, 0)), "allows no x", {"n": 1, "x": 2}),
    (_Colour, lambda cls: cls.RED, _Paler, "no 'RED' now", ["RED", 1]),
    (_Colour, lambda cls: cls.RED, _Renumbered, "was 1 and is 2", ["RED", 1]),
    (_Pair, lambda cls: cls(1), _Triple, "has b now", {"a": 1}),
    (_Slots, lambda cls: _slots(), _OtherSlots, "no 'a' now", {"a": 1}),
    (_Text, lambda cls: cls("x"), _Number, "was a str and is a int", ["x", {}]),
]


@pytest.mark.parametrize(
    ("before", "make", "after", "problem", "data"), CHANGES, ids=lambda part: getattr(part, "__name__", "")
)
def test_a_type_that_is_no_longer_what_it_was_is_said_or_shown(
    before: type, make: Any, after: type | None, problem: str, data: Any
) -> None:
    """An error names it; `raw` gives what was saved of it, and all around it as it was."""
    written = Codec(Allowlist().adding(_named(before))).encode([1, make(before), HumanMessage("x")])
    allowed = Allowlist() if after is None else Allowlist().adding(_named(after))
    with pytest.raises(CheckpointCorruptionError, match=problem) as caught:
        Codec(allowed).decode(written, "channel 'x'")
    assert caught.value.where == "channel 'x'"
    assert "app.Item" in caught.value.problem
    one, raw, message = Codec(allowed, on_decode_error="raw").decode(written)
    assert (one, message) == (1, HumanMessage("x"))
    assert type(raw) is RawValue
    assert raw.type_name == "app.Item"
    assert raw.data == data
    assert len({raw, raw}) == 1
    with pytest.raises(ValueNotSavableError):
        Codec(allowed).encode(raw)


def test_a_declared_name_whose_type_is_gone() -> None:
    gone: Any = _named(make_dataclass("Item", ["a"]), "Gone")
    written = Codec(Allowlist().adding(gone)).encode(gone(1))
    with pytest.raises(CheckpointCorruptionError, match=r"there is no type app\.Gone any more"):
        Codec(Allowlist(names=[("app", "Gone")])).decode(written)


def _ext(code: int, tree: Any) -> bytes:
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(tree)))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "end of file"),
        (b"\xc1", "Reserved"),
        (b"\xd4\x7f\x00", "no extension 127"),
        (_ext(codes.STANDARD, ["system", "x"]), "no standard type"),
        (_ext(codes.STANDARD, ["Pattern", ["(", 0]]), "cannot be read"),
        (_ext(codes.STANDARD, ["Pattern", ["a", 128]]), "no flags"),
        (
            ormsgpack.packb(ormsgpack.Ext(codes.STANDARD, ormsgpack.packb(["ZoneInfo", "../../etc/passwd"]))),
            "no time zone",
        ),
        (
            ormsgpack.packb(ormsgpack.Ext(codes.STANDARD, ormsgpack.packb(["ZoneInfo", "No/Where"]))),
            "No time zone found",
        ),
        (
            ormsgpack.packb(ormsgpack.Ext(codes.STANDARD, ormsgpack.packb(["ndarray", ["O", [1], "C", b"12345678"]]))),
            "never saved",
        ),
        (_ext(codes.STANDARD, ["Ellipsis", 1]), "no parts"),
        (_ext(codes.STANDARD, ["Decimal", [0, [1], 0]]), "no text"),
        (_ext(codes.STANDARD, ["scalar", ["str_", b"x"]]), "no str_"),
        (_ext(codes.STANDARD, ["scalar", ["<i8", b"x"]]), "1 bytes are no int64"),
        (_ext(codes.STANDARD, ["ndarray", [5, [1], "C", b"x"]]), "no dtype"),
        (
            _ext(codes.MODEL, ["Document", -1, {"id": "", "metadata": {}, "page_content": "", "type": ""}]),
            "no fields",
        ),
        (_ext(codes.TUPLE, "text"), "no elements of a tuple"),
        (ormsgpack.packb(ormsgpack.Ext(codes.TYPE, b"os:system")), "not declared"),
        (_ext(codes.MODEL, ["AIMessage", -1, {}]), "no longer"),
    ],
)
def test_what_no_codec_wrote_is_a_corruption_error(data: bytes, problem: str) -> None:
    with pytest.raises(CheckpointCorruptionError, match=problem):
        CODEC.decode(data, "channel 'x'")
    with pytest.raises(CheckpointCorruptionError, match="A saved value"):
        Codec(Allowlist()).decode(b"\xc1")


def test_a_crafted_factory_is_not_called() -> None:
    calls: list[int] = []

    class Caller:
        def __init__(self) -> None:
            calls.append(1)

    codec = Codec(Allowlist().adding(Caller))
    name = codec.encode(Caller)
    data = ormsgpack.packb(ormsgpack.Ext(codes.STANDARD, b"\x92\xabdefaultdict\x91" + name))
    with pytest.raises(CheckpointCorruptionError, match="no factory"):
        codec.decode(data)
    assert calls == []


def test_a_declared_type_that_can_no_longer_be_told() -> None:
    before: Any = _named(make_dataclass("Item", ["a"]))
    after = _named(type("Item", (), {"__reduce__": lambda self: (int, ())}))
    with pytest.raises(CheckpointCorruptionError, match="says itself how it is pickled"):
        Codec(Allowlist().adding(after)).decode(Codec(Allowlist().adding(before)).encode(before(1)))


def test_a_crafted_member_or_value_of_an_extension_is_a_corruption_error() -> None:
    codec = Codec(Allowlist().adding(_Colour, StrangeText))
    name = f"{_Colour.__module__}:{_Colour.__qualname__}"
    with pytest.raises(CheckpointCorruptionError, match="has no 1 now"):
        codec.decode(_ext(codes.ENUM, [name, None, 1]))
    with pytest.raises(CheckpointCorruptionError, match="5 is no str"):
        codec.decode(_ext(codes.EXTENSION, [f"{__name__}:StrangeText", "str", 5, {}]))
