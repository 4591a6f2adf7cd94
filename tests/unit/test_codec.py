"""What is saved comes back equal, in value and in type, and nothing that is not declared is ever loaded."""

from __future__ import annotations

import enum
import ipaddress
import os
import re
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar
from uuid import UUID, uuid1
from zoneinfo import ZoneInfo

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core import messages as lc
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langgraph._internal._typing import MISSING
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import GetOp, Item
from langgraph.types import Command, Interrupt, Overwrite, PregelTask, Send, StateSnapshot, StateUpdate
from pydantic import BaseModel, ConfigDict, PrivateAttr, create_model
from pydantic.dataclasses import dataclass as pydantic_dataclass

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec
from petal.checkpoints.codec import forms as codes
from petal.errors import CheckpointCorruptionError

T = TypeVar("T")


class Colour(Enum):
    RED = 1
    BLUE = "blue"
    PAIR = (1, 2)


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Word(StrEnum):
    YES = "yes"
    NO = "no"


class Right(Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    OWN = READ | WRITE


class Outer:
    class Inner(Enum):
        A = 1

    @dataclass
    class Part:
        n: Any


@dataclass
class Plain:
    n: Any
    s: Any = "x"


@dataclass(frozen=True)
class Frozen:
    n: Any


@dataclass(slots=True)
class Slotted:
    n: Any
    later: Any = field(init=False)


@dataclass(frozen=True, slots=True)
class Both:
    n: Any


@dataclass
class Derived:
    n: Any
    twice: Any = field(init=False)

    def __post_init__(self) -> None:
        raise AssertionError("nobody's code runs when a value is read")


@dataclass
class Box(Generic[T]):
    item: T


class Point(NamedTuple):
    x: Any
    y: Any = 0


class MarkedPoint(Point):
    """A named tuple that has a dict as well."""


class Model(BaseModel):
    n: Any
    s: Any = None


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    n: int = 0


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    n: Any = None


class Secretive(BaseModel):
    n: Any = None
    _seen: Any = PrivateAttr(default=0)
    _unset: Any = PrivateAttr()


class Wrapper(BaseModel, Generic[T]):
    item: T


class Counting(BaseModel):
    n: Any

    @cached_property
    def double(self) -> Any:
        return [self.n, self.n]


@pydantic_dataclass
class Checked:
    n: int


class Note(HumanMessage):
    """A message class of a program's own."""

    mood: str = "fine"


class Name(str):
    """A str with a memory."""

    origin: Any


class Count(int):
    pass


class Ratio(float):
    pass


class Stack(list):  # type: ignore[type-arg]
    pass


class Table(dict):  # type: ignore[type-arg]
    pass


class Triple(tuple):  # type: ignore[type-arg]
    pass


class Ordered(OrderedDict):  # type: ignore[type-arg]
    pass


class Thing:
    """A class that is nothing special."""

    def __init__(self, n: Any) -> None:
        self.n = n


class State(TypedDict):
    """All of them, as a state names them."""

    colour: Colour | Level | Word | Right
    inner: Outer.Inner
    parts: list[Outer.Part | Plain | Frozen | Slotted | Derived]
    both: Both
    box: Box[Point | MarkedPoint]
    models: dict[str, Model | Strict | Open | Secretive | Counting]
    wrapper: Wrapper[int]
    checked: Checked
    note: Note
    texts: tuple[Name, Count, Ratio, Stack, Table, Triple, Ordered]
    thing: Thing


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal all through, types, order and every attribute included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Enum | type):
        return left is right
    if type(left) is numpy.ndarray:
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and left.flags.fnc == right.flags.fnc
            and bool(right.flags.writeable)
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, numpy.generic):
        return left.dtype == right.dtype and left.tobytes() == right.tobytes()
    if isinstance(left, set | frozenset):
        return len(left) == len(right) and all(any(same(a, b) for b in right) for a in left)
    if isinstance(left, dict):
        factories = [getattr(value, "default_factory", None) for value in (left, right)]
        if factories[0] is not factories[1] or not _each(list(left.items()), list(right.items())):
            return False
    elif isinstance(left, list | tuple):
        if not _each(list(left), list(right)):
            return False
    elif isinstance(left, deque):
        return left.maxlen == right.maxlen and _each(list(left), list(right))
    elif isinstance(left, Decimal):
        return left.as_tuple() == right.as_tuple()
    elif isinstance(left, float):
        # NaN equals nothing, and -0.0 equals 0.0.
        if float.hex(left) != float.hex(right):
            return False
    elif isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    elif (isinstance(left, str | int | bytes) and left != right) or (not _attributes(left) and left != right):
        return False
    if isinstance(left, BaseModel):
        pairs = [
            (left.__pydantic_fields_set__, right.__pydantic_fields_set__),
            (left.__pydantic_extra__, right.__pydantic_extra__),
            (left.__pydantic_private__, right.__pydantic_private__),
        ]
        return same(left.__dict__, right.__dict__) and all(same(a, b) for a, b in pairs)
    return _same_attributes(left, right)


def _each(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))


def _attributes(value: Any) -> dict[str, Any]:
    names = [name for base in type(value).__mro__ for name in vars(base).get("__slots__", ())]
    found = {name: getattr(value, name) for name in names if isinstance(name, str) and hasattr(value, name)}
    return {**found, **getattr(value, "__dict__", {})} if type(value).__module__ not in _OPAQUE else {}


_OPAQUE = {
    "builtins",
    "datetime",
    "uuid",
    "fractions",
    "pathlib",
    "pathlib._local",
    "ipaddress",
    "zoneinfo",
    "decimal",
    "re",
}
"""Modules whose types are told by their equality."""


def _same_attributes(left: Any, right: Any) -> bool:
    mine, theirs = _attributes(left), _attributes(right)
    return mine.keys() == theirs.keys() and all(same(mine[name], theirs[name]) for name in mine)


CODEC = Codec(Allowlist.of_state(State))


def back(value: Any) -> Any:
    data = CODEC.encode(value, "channel 'x'")
    assert CODEC.encode(value) == data, "the bytes depend on more than the value"
    read = CODEC.decode(data, "channel 'x'")
    assert CODEC.encode(read) == data
    return read


def _name() -> Name:
    name = Name("Ada")
    name.origin = (1, "x")
    return name


def _unset() -> Slotted:
    return Slotted(1)


def _extra_attribute() -> Plain:
    plain = Plain(1)
    plain.more = {1: 2}  # type: ignore[attr-defined]
    return plain


def _derived() -> Derived:
    derived: Derived = object.__new__(Derived)
    derived.n, derived.twice = 1, 2
    return derived


def _odd_attribute() -> Plain:
    plain = Plain(1)
    setattr(plain, "\ud800", "\udfff")
    return plain


def _marked() -> MarkedPoint:
    point = MarkedPoint(1, 2)
    point.mark = [3]  # type: ignore[attr-defined]
    return point


def _cached() -> Counting:
    counting = Counting(n=1)
    assert counting.double == [1, 1]
    return counting


def _private() -> Secretive:
    secretive = Secretive(n=1)
    secretive._seen = (1, {2})
    return secretive


def _moved() -> OrderedDict[str, int]:
    ordered = OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    return ordered


def _deep(levels: int) -> list[Any]:
    deep: list[Any] = ["bottom"]
    for _ in range(levels):
        deep = [deep]
    return deep


USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "input_token_details": {"cache_read": 1}}
CALL = {"name": "search", "args": {"q": "x", "n": [1, None]}, "id": "c1", "type": "tool_call"}
BLOCKS: list[Any] = ["text", {"type": "text", "text": "x"}, {"type": "image", "base64": "aa", "mime_type": "image/png"}]
MESSAGES: list[lc.BaseMessage] = [
    lc.HumanMessage("hi"),
    lc.HumanMessage(BLOCKS, id="1", name="Ada", additional_kwargs={"a": 1}),
    lc.HumanMessage("x", mood="extra"),
    lc.HumanMessage("x" * 70_000),
    lc.HumanMessageChunk("h"),
    lc.AIMessage("", tool_calls=[CALL], usage_metadata=USAGE, response_metadata={"model_name": "m", "p": 0.5}),
    lc.AIMessage(
        "", invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": "bad", "type": "invalid_tool_call"}]
    ),
    lc.AIMessageChunk(
        "x",
        tool_call_chunks=[{"name": "f", "args": "{", "id": "1", "index": 0, "type": "tool_call_chunk"}],
        chunk_position="last",
    ),
    lc.SystemMessage("be good"),
    lc.SystemMessageChunk("be"),
    lc.ToolMessage("42", tool_call_id="c1", artifact=(1, {2, 3}, b"x", bytearray(b"y")), status="error"),
    lc.ToolMessageChunk("4", tool_call_id="c1"),
    lc.ChatMessage("x", role="critic"),
    lc.ChatMessageChunk(content="x", role="critic"),
    lc.FunctionMessage("x", name="f"),
    lc.FunctionMessageChunk(content="x", name="f"),
    lc.RemoveMessage(id="1"),
    Note("x", mood="grim"),
    lc.HumanMessage("\ud800 lone", additional_kwargs={"\udfff": 1, 2: 3}),
    lc.HumanMessage.model_construct(content="not validated"),
]

VALUES: list[Any] = [
    *[None, True, False, 0, -1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400, -(10**400)],
    *[0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan"), complex(-0.0, float("nan"))],
    *["", "x", "\x00", "\ud800", "a\udc00b", "żółć", "\U0001f600"],
    *[b"", b"\x00\xff", bytearray(b"x"), [bytearray(b"x"), b"x"], {"a": {"b": bytearray()}}],
    *[[], {}, (), ((),), [()], {"a": (1, [2])}, {1: "a", "1": "b", (1, 2): None, None: 0, 1.5: {}}, {"\ud800": 1}],
    *[set(), {1, "a", (1, 2), None}, frozenset({1, frozenset({2})}), {b"x": {1}}],
    *[
        deque(),
        deque([1, (2,)], maxlen=3),
        OrderedDict(a=1, b=(2,)),
        _moved(),
        Counter("hello"),
        Counter({("a", 1): -1}),
    ],
    *[defaultdict(list, {1: [2]}), defaultdict(None, a=1), defaultdict(Counter), defaultdict(int, {"x": 1})],
    datetime(2024, 1, 2, 3, 4, 5, 6),
    datetime(2024, 1, 2, tzinfo=UTC),
    datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=2), "here")),
    datetime(2024, 1, 2, tzinfo=timezone(timedelta(seconds=-1))),
    *[date(1, 1, 1), time(1, 2, 3, 4), time(1, tzinfo=UTC, fold=1), timedelta(-1, 2, 3), UTC, ZoneInfo("America/Lima")],
    *[Decimal("1.10"), Decimal("-0"), Decimal("NaN123"), Decimal("-Infinity"), Decimal("1E+500"), Fraction(-1, 3)],
    *[UUID(int=5), uuid1(), Path("/a/b"), PurePosixPath("a"), PureWindowsPath("c:/x"), Path("a\udcff")],
    *[re.compile("a+", re.IGNORECASE), re.compile(b"\xff"), range(1, 10, 3), slice(1, None), ...],
    *[ipaddress.ip_address("1.2.3.4"), ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_interface("fe80::1%eth0/64")],
    *[int, dict, list, datetime, list[int], dict[str, Any] if False else dict[str, int], Colour, lc.AIMessage],
    *[*Colour, *Level, *Word, *Right, Right.READ | Right.WRITE, Right(0), Outer.Inner.A, {Word.YES: Level.LOW}],
    *[
        Plain(1),
        Plain(Plain(bytearray(b"x"))),
        Frozen((1,)),
        _unset(),
        Both({1}),
        _derived(),
        _extra_attribute(),
        _odd_attribute(),
        ["\ud800", _odd_attribute()],
    ],
    *[
        Outer.Part(None),
        Box(1),
        Box[int](2),
        Checked(3),
        Point(1),
        Point(Point(1, 2), [3]),
        _marked(),
        MarkedPoint(1),
        Thing([1]),
        Thing(Thing(2)),
    ],
    *[Model(n=1), Model(n={"a": (1,)}, s="\ud800"), Strict(), Strict(n=1), Open(n=1), Open(n=1, more=(2,), x=None)],
    *[
        Secretive(),
        _private(),
        Secretive.model_construct(),
        Wrapper[int](item=1),
        _cached(),
        Model.model_construct(s=1),
    ],
    *[
        _name(),
        Count(5),
        Count(10**30),
        Ratio("nan"),
        Stack([1, (2,)]),
        Table({1: 2}),
        Triple((1, 2)),
        Ordered(b=1, a=2),
    ],
    *[Interrupt("sure?"), Interrupt({"a": (1,)}, id="x"), Interrupt(1, response_schema={"type": "object"})],
    *[Send("node", {"x": (1,)}), Send("node", Plain(1), timeout=2.5), Overwrite([1]), Overwrite({1})],
    *[Command(goto=[Send("a", 1), "b"], update={"x": (1,)}, resume=None, graph=Command.PARENT), Command()],
    *[_DeltaSnapshot([lc.HumanMessage("x")]), MISSING, StateUpdate({"a": 1}), GetOp(("a",), "k")],
    PregelTask("id", "name", ("__pregel_pull", "name"), None, (Interrupt(1),)),
    StateSnapshot({"a": 1}, ("n",), {"configurable": {}}, None, None, None, (), ()),
    Item(value={"a": 1}, key="k", namespace=("a",), created_at=datetime.now(UTC), updated_at=datetime.now(UTC)),
    Document("text", id="1", metadata={"page": 1, "at": date(2024, 1, 1)}),
    *MESSAGES,
    MESSAGES,
    [1, *MESSAGES],
    [*MESSAGES[:3]] * 10,
    {"messages": MESSAGES, 1: MESSAGES},
    {"a": _deep(50), "b": (_deep(10), {1: _deep(10)})},
    numpy.array([[1, 2], [3, 4]]),
    numpy.asfortranarray([[1.5, 2], [3, 4]]),
    numpy.arange(10)[::2],
    *[
        numpy.array(5),
        numpy.empty((0, 3), ">i2"),
        numpy.array(["a", "bc"]),
        numpy.array([b"a\x00b"]),
        numpy.array([True]),
    ],
    *[numpy.array(["2024-01-01"], "M8[D]"), numpy.zeros(2, [("a", "<i4"), ("b", "f8", (2,))]), numpy.array([1 + 2j])],
    *[
        numpy.float32(1.5),
        numpy.int64(5),
        numpy.longlong(5),
        numpy.bool_(True),
        numpy.str_("a\x00"),
        numpy.bytes_(b"a\x00"),
    ],
    *[numpy.datetime64("2024-01-01"), numpy.timedelta64(5, "s"), numpy.float64("nan"), numpy.complex64(1j)],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_the_same(value: Any) -> None:
    assert same(back(value), value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_bytes_do_not_depend_on_what_was_written_before(value: Any) -> None:
    """A codec that never met the types writes the same as one that did."""
    assert Codec(Allowlist.of_state(State)).encode(value) == CODEC.encode(value)


def test_bytes_do_not_depend_on_the_process() -> None:
    """Sets are ordered by hash, and hashes of strings differ between processes."""
    program = (
        "from petal.checkpoints.allowlist import Allowlist; from petal.checkpoints.codec import Codec;"
        "from langchain_core.messages import AIMessage;"
        "value = [{*'abcdefgh'}, frozenset(map(str, range(50))), AIMessage('x', id='1', name='y', example=True)];"
        "print(Codec(Allowlist()).encode(value).hex())"
    )
    seeds = ("1", "2", "3")
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        for seed in seeds
    ]
    assert len({run.stdout for run in runs}) == 1


@pytest.mark.parametrize("levels", [254, 255, 400])
def test_a_value_may_be_deeper_than_messagepack_is(levels: int) -> None:
    data = CODEC.encode({"x": _deep(levels)})
    value = CODEC.decode(data)["x"]
    for _ in range(levels):
        assert type(value) is list
        (value,) = value
    assert value == ["bottom"]


def test_numpy_is_imported_by_nobody_who_has_no_arrays() -> None:
    """And by whoever reads one."""
    data = CODEC.encode(numpy.array([1, 2])).hex()
    program = (
        "import sys; from petal.checkpoints.allowlist import Allowlist; from petal.checkpoints.codec import Codec;"
        "codec = Codec(Allowlist());"
        "codec.decode(codec.encode([1, (2,), {3}]));"
        "assert 'numpy' not in sys.modules;"
        f"print(repr(codec.decode(bytes.fromhex({data!r}))))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "array([1, 2])\n"


def test_any_combination_of_fields_that_were_set_comes_back() -> None:
    """There are more than are remembered."""
    letters = "abcdefghijk"
    many: Any = create_model("many", **dict.fromkeys(letters, (int, 0)))
    codec = Codec(Allowlist().adding(many))
    for mask in range(1, 1 << len(letters)):
        model = many(**dict.fromkeys((letter for at, letter in enumerate(letters) if mask & 1 << at), 1))
        assert codec.decode(codec.encode(model)).model_fields_set == model.model_fields_set


def test_messages_that_hold_unusual_values_come_back_alone_and_in_a_list() -> None:
    unusual = lc.HumanMessage("hi", additional_kwargs={"at": datetime(2026, 1, 2, tzinfo=UTC), "seen": {1, 2}})
    plain = lc.HumanMessage("plain")
    for value in (unusual, [plain, unusual, plain], [unusual, {"not": "a message"}, plain]):
        assert CODEC.decode(CODEC.encode(value)) == value


def test_what_is_read_is_its_own() -> None:
    """Values are mutable, and the same bytes may be read twice."""
    message = lc.AIMessage("x", response_metadata={"a": [1]})
    data = CODEC.encode([message])
    first, second = CODEC.decode(data), CODEC.decode(data)
    first[0].response_metadata["a"].append(2)
    first[0].__pydantic_fields_set__.add("id")
    assert same(second, [message])


atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.binary().map(bytearray),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.dates(),
    st.timedeltas(),
    st.datetimes(timezones=st.none() | st.timezones() | st.just(UTC), allow_imaginary=True),
    st.times(timezones=st.none() | st.just(UTC)),
    st.ip_addresses(),
    st.sampled_from([*Colour, *Level, *Word, *Right, Right(0), Outer.Inner.A, MISSING, ...]),
    st.builds(range, st.integers(), st.integers(), st.integers(1)),
    st.text("ab/.").map(Path),
    st.builds(Count, st.integers()),
    st.builds(Name, st.text()),
)
keys = st.recursive(
    st.none()
    | st.integers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.sampled_from([*Level, *Word]),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3) | st.builds(Frozen, inner),
    max_leaves=4,
)
names = st.text(st.characters(exclude_categories=()), max_size=4)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, max_size=3)
    named = st.dictionaries(names, inner, max_size=3)
    return st.one_of(
        several,
        several.map(tuple),
        several.map(Stack),
        several.map(Triple),
        st.builds(deque, several, st.none() | st.integers(3, 5)),
        named,
        named.map(OrderedDict),
        named.map(Table),
        named.map(lambda items: defaultdict(list, items)),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(keys, max_size=3),
        st.frozensets(keys, max_size=3),
        st.builds(Plain, inner, inner),
        st.builds(Frozen, inner),
        st.builds(Slotted, inner),
        st.builds(Both, inner),
        st.builds(Box, inner),
        st.builds(Point, inner, inner),
        st.builds(Thing, inner),
        st.builds(Model, n=inner, s=inner),
        # pydantic takes no lone surrogate in the name of an extra field.
        st.builds(
            lambda n, extra: Open(
                n=n, **{f"x{key}".encode(errors="replace").decode(): one for key, one in extra.items()}
            ),
            inner,
            named,
        ),
        st.builds(Send, st.text(), inner),
        st.builds(Interrupt, inner),
        st.builds(Overwrite, inner),
        st.builds(Command, update=inner, resume=inner),
        st.builds(lc.HumanMessage, st.text(), id=st.none() | st.text()),
        st.builds(lc.AIMessage, st.text(), additional_kwargs=named, response_metadata=named),
        st.builds(lc.ToolMessage, st.text(), tool_call_id=st.text(), artifact=inner),
        st.builds(Document, st.text(), metadata=named),
    )


values = st.recursive(atoms, _containers, max_leaves=12)


@settings(max_examples=400, deadline=None)
@given(values)
def test_any_value_comes_back_the_same(value: Any) -> None:
    assert same(back(value), value)


def _read(data: bytes) -> None:
    modules = set(sys.modules)
    for codec in (CODEC, Codec(CODEC.allowed, on_decode_error="raw")):
        try:
            codec.decode(data, "channel 'x'")
        except CheckpointCorruptionError as error:
            assert error.where == "channel 'x'"  # noqa: PT017  most garbage is none, and some is a value
    assert set(sys.modules) == modules


@settings(max_examples=500, deadline=None)
@given(st.binary())
def test_garbage_is_a_corruption_error(data: bytes) -> None:
    _read(data)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(VALUES).map(CODEC.encode), st.data())
def test_a_damaged_value_is_another_value_or_a_corruption_error(data: bytes, draw: st.DataObject) -> None:
    """Bits are flipped, bytes cut, and pieces put in."""
    damaged = bytearray(data[:2000])
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, max(0, len(damaged) - 1)))
        match draw.draw(st.sampled_from(["flip", "cut", "insert", "swap"])):
            case "flip" if damaged:
                damaged[at] ^= 1 << draw.draw(st.integers(0, 7))
            case "cut":
                del damaged[at : at + draw.draw(st.integers(1, 8))]
            case "insert":
                damaged[at:at] = draw.draw(st.binary(min_size=1, max_size=4))
            case _:
                damaged[at : at + 1] = draw.draw(st.sampled_from(VALUES).map(CODEC.encode))[:100]
    _read(bytes(damaged))


@pytest.mark.parametrize("levels", [10, 1_000, 50_000])
def test_depth_that_was_never_written_is_a_corruption_error(levels: int) -> None:
    """Extensions in extensions, far beyond the stack."""
    data = b"\xc0"
    for _ in range(levels):
        header = b"\xc9" + len(data).to_bytes(4, "big") + bytes([codes.NESTED])
        data = header + data if levels < 50_000 else b"\x91" + data
    if levels == 10:
        assert CODEC.decode(data) is None
    else:
        with pytest.raises(CheckpointCorruptionError):
            CODEC.decode(data)
