"""A type is loaded if it was declared, and nothing else is ever imported."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass
from enum import Enum, Flag
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Required,
    TypedDict,
    TypeVar,
    Union,
)

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage
from langgraph.graph import MessagesState, add_messages
from pydantic import BaseModel, SecretStr
from typing_extensions import TypeAliasType

from petal.checkpoints.allowlist import STANDARD, Allowlist, resolve
from petal.checkpoints.codec import Codec, ValueNotSavableError
from petal.checkpoints.codec.forms import DATACLASS, DECLARED
from petal.errors import CheckpointerConfigurationError

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]


class A(Enum):
    X = 1


class B(Flag):
    X = 1


@dataclass
class C:
    inner: D
    only: InitVar[Bare]
    constant: ClassVar[Bare]


@dataclass
class D:
    again: C | None


class Bare:
    pass


class E(BaseModel):
    f: F
    secret: SecretStr
    _private: G | None = None


class F(BaseModel):
    maker: Callable[[H], I]


class G(Enum):
    X = 1


class H(NamedTuple):
    j: list[J]


class I(Enum):  # noqa: E742
    X = 1


class J(Enum):
    X = 1


T = TypeVar("T")


@dataclass
class K(Generic[T]):
    t: T


@dataclass
class M:
    n: int


Bound = TypeVar("Bound", bound=M)


class L(BaseModel, Generic[Bound]):
    item: Bound


class Reducer:
    def __call__(self, left: Any, right: Any) -> Any:
        return right


Id = NewType("Id", Bare)
Alias = TypeAliasType("Alias", list[I])


class Parent(TypedDict):
    parent: A


class State(Parent, total=False):
    literal: Literal[G.X, "x"]


def reached(*annotations: Any) -> set[type]:
    allowed = Allowlist.of_state(*annotations)
    everything = [A, B, C, D, E, F, G, H, I, J, K, L, M, Bare, Reducer, SecretStr, AIMessage, Path, L[M]]
    return {cls for cls in everything if allowed._known.get((cls.__module__, cls.__qualname__)) is cls}


@pytest.mark.parametrize(
    ("annotation", "types"),
    [
        (int, set()),
        (Any, set()),
        (None, set()),
        (A, {A}),
        (list[A], {A}),
        (dict[str, tuple[A, ...]], {A}),
        (Sequence[A] | None, {A}),
        (Optional[Union[A, "B"]], {A}),  # noqa: UP045  what `"B"` is cannot be known without its module
        (deque[Annotated[A, Reducer()]], {A}),
        (Annotated[list[A], Reducer], {A}),
        (Literal["x"], set()),
        (type[Bare], {Bare}),
        (Id, {Bare}),
        (Alias, {I}),
        (Path, {Path}),
        (C, {C, D}),
        (E, {E, F, G, H, I, J}),
        (H, {H, J}),
        (K[A], {K, A}),
        (L[M], {M, L[M]}),
        (L, {L, M}),
        (Bound, {M}),
        (State, {A, G}),
        (SecretStr, set()),
        (Parent | C, {A, C, D}),
    ],
)
def test_the_types_of_a_state_are_those_its_annotations_reach(annotation: Any, types: set[type]) -> None:
    assert reached(annotation) == types


def test_a_field_that_only_a_type_checker_knows_does_not_hide_the_others() -> None:
    class Half(TypedDict):
        unknown: Unknown
        known: NotRequired[A]
        more: Required[B]

    assert reached(Half) == {A, B}


def test_any_message_is_in_it_without_being_declared() -> None:
    allowed = Allowlist()
    for name, (module, qualname) in STANDARD.items():
        cls = allowed.get(module, qualname)
        assert cls is not None, name
        assert allowed.name_of(cls) == name
        assert allowed.place_of(name) == (module, qualname)
    assert Allowlist.of_state(MessagesState).get("langchain_core.messages.ai", "AIMessage") is AIMessage


def test_adding_leaves_the_first_as_it_was() -> None:
    first = Allowlist.of_state(A)
    second = first.adding(SecretStr, Bare).adding_names([("json", "JSONDecoder")])
    assert first.get(__name__, "Bare") is None
    assert second.get(__name__, "A") is A
    assert second.get(__name__, "Bare") is Bare
    assert second.get("pydantic.types", "SecretStr") is SecretStr
    assert "Bare" in repr(second)
    assert repr(Allowlist()) == "<Allowlist of the standard types>"


def test_a_secret_is_saved_only_by_someone_who_means_it() -> None:
    @dataclass
    class Config:
        key: SecretStr

    allowed = Allowlist.of_state(Config)
    with pytest.raises(ValueNotSavableError, match=r"pydantic\.types\.SecretStr"):
        Codec(allowed).encode(Config(SecretStr("x")))
    codec = Codec(allowed.adding(SecretStr))
    assert codec.decode(codec.encode(Config(SecretStr("x")))) == Config(SecretStr("x"))


def test_a_class_within_a_function_is_known_by_the_object_alone() -> None:
    class Local:
        pass

    assert Allowlist().adding(Local).get(__name__, Local.__qualname__) is Local
    assert resolve(__name__, Local.__qualname__) is None
    assert Allowlist(names=[(__name__, Local.__qualname__)]).get(__name__, Local.__qualname__) is None


def test_only_types_can_be_added() -> None:
    with pytest.raises(CheckpointerConfigurationError, match="'x' is none"):
        Allowlist().adding("x")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "qualname"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("re", "compile"),
        ("nowhere", "X"),
        ("json", "No"),
        ("json", ""),
        ("", "x"),
    ],
)
def test_a_declared_name_that_is_no_type_is_none(module: str, qualname: str) -> None:
    assert resolve(module, qualname) is None
    assert Allowlist(names=[(module, qualname)]).get(module, qualname) is None


def test_a_name_is_imported_when_it_is_asked_for_if_it_was_declared() -> None:
    allowed = Allowlist(names=[("colorsys", "X"), ("fractions", "Fraction")])
    sys.modules.pop("colorsys", None)
    assert allowed.get("antigravity", "X") is None
    assert "antigravity" not in sys.modules
    assert "colorsys" not in sys.modules
    assert allowed.get("colorsys", "X") is None
    assert "colorsys" in sys.modules
    fraction = allowed.get("fractions", "Fraction")
    assert fraction is not None
    assert fraction.__name__ == "Fraction"


class Outer:
    class Inner:
        pass


def test_a_nested_name_is_found_also_as_langgraph_tells_it() -> None:
    """LangGraph's allowlist holds the last name only."""
    assert resolve(__name__, "Outer.Inner") is Outer.Inner
    assert Allowlist(names=[(__name__, "Outer.Inner")]).get(__name__, "Outer.Inner") is Outer.Inner
    assert Allowlist(names=[(__name__, "Inner")]).name_of(Outer.Inner) == f"{__name__}:Outer.Inner"


def test_messages_named_in_a_state_are_those_already_allowed() -> None:
    class Chat(TypedDict):
        messages: Annotated[list[AnyMessage], add_messages]
        base: BaseMessage

    allowed = Allowlist.of_state(Chat)
    assert allowed.name_of(AIMessage) == "AIMessage"


def test_every_dataclass_of_the_standard_set_has_the_fields_that_are_saved() -> None:
    """A class of LangGraph's that is no longer what the codec takes it for shows here, not in a database."""
    codec = Codec(Allowlist())
    for place in STANDARD.values():
        cls = resolve(*place)
        assert cls is not None
        assert codec._forms.of(cls).code in DECLARED
        assert not dataclasses.is_dataclass(cls) or codec._forms.of(cls).code == DATACLASS
