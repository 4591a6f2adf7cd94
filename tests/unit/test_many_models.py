"""Messages that look as before are not encoded again, and whatever is not quite as before is: in C, and without."""

from __future__ import annotations

import copy
import gc
import math
import os
import subprocess
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, PrivateAttr, create_model

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec, coding, many_models, many_models_in_python
from petal.errors import CheckpointCorruptionError

IMPLEMENTATIONS = [pytest.param(many_models_in_python, id="in Python")]
if many_models.IN_C:
    IMPLEMENTATIONS.append(pytest.param(many_models, id="in C"))


@pytest.fixture(params=IMPLEMENTATIONS, autouse=True)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Each of the two, in the codec's place."""
    module: ModuleType = request.param
    for name in ("look", "unchanged", "again", "read"):
        monkeypatch.setattr(coding, name, getattr(module, name))
    return module


def test_it_is_in_c_where_a_compiler_is_at_hand(can_compile: bool) -> None:
    assert can_compile == many_models.IN_C


class Text(str):
    """Equal to plain text."""

    __slots__ = ()


class Counted(BaseModel):
    model_config = ConfigDict(extra="allow")
    count: int | bool | float = 0
    kept: Any = None


class Secretive(BaseModel):
    _secret: str = PrivateAttr("s")


CODEC = Codec(Allowlist().adding(Text, Counted, Secretive))


def messages() -> list[AnyMessage]:
    return [
        SystemMessage("Be brief."),
        HumanMessage("hello", id="1"),
        AIMessage(
            [{"type": "text", "text": "hi"}],
            id="2",
            tool_calls=[{"name": "f", "args": {"x": 1, "y": [1.5, None]}, "id": "c", "type": "tool_call"}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        ),
        ToolMessage("done", tool_call_id="c", artifact={"k": [True]}),
    ]


def kept(values: list[Any]) -> Any:
    """Bytes and looks of values, once their classes have been met."""
    CODEC.encode_items(values)
    return CODEC.encode_items(values)


def test_what_is_the_same_keeps_its_bytes() -> None:
    items, seen = kept(messages())
    assert None not in seen
    again, same = CODEC.encode_items(CODEC.decode_items(items), "", items, seen)
    assert [id(item) for item in again] == [id(item) for item in items]
    assert [id(one) for one in same] == [id(one) for one in seen]


def test_of_a_list_that_grew_only_the_end_is_encoded() -> None:
    items, seen = kept(messages())
    more = [*CODEC.decode_items(items, "", seen), HumanMessage("more")]
    grown, looked = CODEC.encode_items(more, "", items, seen)
    assert [id(item) for item in grown[:-1]] == [id(item) for item in items]
    assert [id(one) for one in looked[:-1]] == [id(one) for one in seen]
    assert CODEC.decode_items(grown, "", looked) == more


def set_content(value: Any) -> Callable[[list[Any]], None]:
    return lambda values: setattr(values[1], "content", value)


CHANGES: dict[str, Callable[[list[Any]], Any]] = {
    "another text": set_content("hello!"),
    "a subclass of text": set_content(Text("hello")),
    "a list": set_content(["hello"]),
    "an array": set_content(numpy.array([1, 2])),
    "an entry of an empty dict": lambda values: values[1].additional_kwargs.update(k=1),
    "another kind of empty dict": lambda values: setattr(values[1], "additional_kwargs", OrderedDict()),
    "another field set": lambda values: values[1].__pydantic_fields_set__.add("name"),
    "an extra field": lambda values: values[1].__pydantic_extra__.update(k=1),
    "a bool for a number": lambda values: values[2].tool_calls[0]["args"].update(x=True),
    "a float for a number": lambda values: values[2].usage_metadata.update(input_tokens=1.0),
    "another order": lambda values: setattr(
        values[2], "usage_metadata", dict(reversed(values[2].usage_metadata.items()))
    ),
    "a text in a block": lambda values: values[2].content[0].update(text=Text("hi")),
    "an array for a number": lambda values: values[2].tool_calls[0]["args"].update(x=numpy.array([1, 1])),
    "a date": lambda values: values[3].artifact.update(at=datetime(2026, 1, 1, tzinfo=UTC)),
    "one message less": lambda values: values.pop(1),
    "one message more": lambda values: values.insert(0, HumanMessage("first")),
    "no message": lambda values: values.append({"role": "user"}),
    "another class": lambda values: values.__setitem__(1, SystemMessage("hello", id="1")),
    "nothing left": lambda values: values.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_in_place_is_encoded_again(change: Callable[[list[Any]], Any]) -> None:
    items, seen = kept(messages())
    values = CODEC.decode_items(items, "", seen)
    change(values)
    assert CODEC.encode_items(values, "", items, seen)[0] == tuple(map(CODEC.encode, values))


def test_what_is_made_again_shares_nothing() -> None:
    items, seen = kept(messages())
    first, second = CODEC.decode_items(items, "", seen), CODEC.decode_items(items, "", seen)
    assert first == second == messages()
    assert [set(value.__pydantic_fields_set__) for value in first] == [
        set(value.__pydantic_fields_set__) for value in messages()
    ]
    for change in (CHANGES["an entry of an empty dict"], CHANGES["a bool for a number"], CHANGES["another field set"]):
        change(first)
    assert second == CODEC.decode_items(items, "", seen) == messages()
    assert second[1].__pydantic_fields_set__ == messages()[1].__pydantic_fields_set__


def used_again(change: Callable[[list[Any]], object] = lambda used: None) -> tuple[list[int], list[int], list[Any]]:
    """Ids of values that were given up, after a change of them, and of those that were then loaded; and these."""
    items, seen = kept(messages())
    used = CODEC.decode_items(items, "", seen)
    held = change(used)
    before = [id(value) for value in used]
    loaded = CODEC.decode_items(items, "", seen, used)
    assert shown(loaded) == shown(messages())
    del held
    return before, [id(value) for value in loaded], loaded


def test_what_nobody_holds_any_more_is_used_again(implementation: ModuleType) -> None:
    before, after, _ = used_again()
    assert (before == after) == (implementation is many_models)


HOLDING: dict[str, Callable[[list[Any]], object]] = {
    "the message": lambda used: used[2],
    "its fields": lambda used: vars(used[2]),
    "the names of its fields": lambda used: used[2].__pydantic_fields_set__,
    "its extra": lambda used: used[2].__pydantic_extra__,
    "an empty dict": lambda used: used[2].additional_kwargs,
    "a list": lambda used: used[2].tool_calls,
    "a dict in a list": lambda used: used[2].tool_calls[0]["args"],
    "a list in that": lambda used: used[2].tool_calls[0]["args"]["y"],
    "a block": lambda used: used[2].content[0],
    "a weak reference": lambda used: weakref.ref(used[2]),
    "a weak reference to the names": lambda used: weakref.ref(used[2].__pydantic_fields_set__),
    "another message": lambda used: setattr(used[3], "artifact", used[2]),
}


@pytest.mark.parametrize("hold", HOLDING.values(), ids=HOLDING)
def test_what_somebody_holds_is_made_anew(hold: Callable[[list[Any]], object], implementation: ModuleType) -> None:
    before, after, _ = used_again(hold)
    assert before[2] != after[2]
    if implementation is many_models:
        assert before[:2] == after[:2]


@pytest.mark.parametrize("change", list(CHANGES.values())[:14], ids=list(CHANGES)[:14])
def test_what_was_changed_is_made_anew(change: Callable[[list[Any]], Any]) -> None:
    """By somebody who holds it no more."""
    before, after, _ = used_again(change)
    assert before != after


def test_one_value_in_two_places_is_made_twice() -> None:
    both = [HumanMessage("x")] * 2
    items, seen = kept(both)
    used = CODEC.decode_items(items, "", seen)
    used[1] = used[0]
    one, other = CODEC.decode_items(items, "", seen, used)
    assert one == other == both[0]
    assert one is not other


@pytest.mark.parametrize("tuples", [((1, 2),), ((1, []),)], ids=["of atoms", "of more"])
def test_a_tuple_that_others_hold_may_hold_no_more_than_atoms(tuples: Any, implementation: ModuleType) -> None:
    items, seen = kept([Counted(kept=tuples)])
    used = CODEC.decode_items(items, "", seen)
    inner, before = used[0].kept[0], id(used[0])
    (again,) = CODEC.decode_items(items, "", seen, used)
    assert (id(again) == before) == (implementation is many_models and inner == (1, 2))
    assert again.kept == tuples


@pytest.mark.parametrize("length", [0, 1, 3, 6])
def test_more_or_fewer_used_ones_than_looks_are_fine(length: int) -> None:
    items, seen = kept(messages())
    used = [*CODEC.decode_items(items, "", seen), "text", None][:length]
    assert shown(CODEC.decode_items(items, "", seen, used)) == shown(messages())


def test_used_ones_of_another_order_or_class_are_made_anew() -> None:
    items, seen = kept(messages())
    used = CODEC.decode_items(items, "", seen)[::-1]
    assert shown(CODEC.decode_items(items, "", seen, used)) == shown(messages())
    assert shown(Codec(Allowlist()).decode_items(items, "", seen, used)) == shown(messages())


def test_models_among_other_values_keep_their_bytes() -> None:
    values = ["text", HumanMessage("hi", id="1"), 3, HumanMessage("more", id="2")]
    items, seen = kept(values)
    again = CODEC.decode_items(items, "", seen)
    assert again == values
    same, _ = CODEC.encode_items(again, "", items, seen)
    assert same == items
    assert [same[n] is items[n] for n in (1, 3)] == [True, True]
    again[3].content = "changed"
    assert CODEC.encode_items(again, "", items, seen)[0] == (*items[:3], CODEC.encode(again[3])) != items


def test_a_codec_that_never_saw_a_class_reads_the_bytes() -> None:
    """It may not be allowed there."""
    items, seen = kept(messages())
    assert Codec(Allowlist()).decode_items(items, "", seen) == messages()


def with_itself() -> HumanMessage:
    message = HumanMessage("hi")
    message.additional_kwargs["self"] = message.additional_kwargs
    return message


def test_what_cannot_be_saved_has_no_look(implementation: ModuleType) -> None:
    assert implementation.look(with_itself()) is None
    known = implementation.look(HumanMessage("hi"))
    unset = HumanMessage.__new__(HumanMessage)  # pydantic was told nothing of it
    assert implementation.unchanged([with_itself(), unset, "text"], (known,) * 3, {HumanMessage}) == b"\0\0\0"
    assert implementation.unchanged([HumanMessage("hi")], (known,), {HumanMessage}) == b"\1"
    assert implementation.unchanged([HumanMessage("hi")], (known,), {AIMessage}) == b"\0"


@pytest.mark.parametrize(
    "model",
    [
        Counted(count=True, more="extra"),
        Secretive(),
        HumanMessage("hi", additional_kwargs={"at": datetime(2026, 1, 1, tzinfo=UTC)}),
        HumanMessage("hi", additional_kwargs={"deep": [[{"at": Text("x")}]]}),
    ],
    ids=["an extra", "a private one", "a date", "a subclass of text"],
)
def test_models_of_more_than_plain_data_have_no_look(model: BaseModel, implementation: ModuleType) -> None:
    assert implementation.look(model) is None
    items, seen = kept([model, HumanMessage("hi")])
    assert seen[0] is None
    assert CODEC.encode_items([model, HumanMessage("hi")], "", items, seen)[0] == items
    assert CODEC.decode_items(items, "", seen) == [model, HumanMessage("hi")]


def test_a_model_without_extras_is_made_again() -> None:
    class Plain(BaseModel):
        text: str = ""

    codec = Codec(Allowlist().adding(Plain))
    codec.encode_items([Plain()])
    items, seen = codec.encode_items([Plain(text="x"), Plain()])
    made = codec.decode_items(items, "", seen)
    assert made == [Plain(text="x"), Plain()]
    assert made[0].__pydantic_extra__ is None


def test_the_garbage_collector_rests_and_goes_on() -> None:
    many = [HumanMessage(str(n)) for n in range(200)]
    items, _ = kept(many)
    assert CODEC.decode_items(items) == many
    assert gc.isenabled()
    with pytest.raises(Exception, match="cannot be read"):
        CODEC.decode_items((b"\xc1",) * 200)
    assert gc.isenabled()
    gc.disable()
    try:
        assert CODEC.decode_items(items) == many
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (1, 1.0), (0.0, -0.0), (b"x", "x"), ([1], (1,)), ((1, [2]), (1, [3])), (2**70, 2**70 + 1), (None, 0)],
    ids=repr,
)
def test_another_type_is_a_change(before: Any, after: Any) -> None:
    """In a field, and within one."""
    for wrap in (lambda value: value, lambda value: {"in": [value]}):
        items, seen = kept([Counted(kept=wrap(before))])
        same = CODEC.decode_items(items, "", seen)
        assert CODEC.encode_items(same, "", items, seen)[0] == items
        changed = [Counted(kept=wrap(after))]
        assert CODEC.encode_items(changed, "", items, seen)[0] == (CODEC.encode(changed[0]),) != items


def test_a_model_of_many_fields_comes_back() -> None:
    Wide: type[BaseModel] = create_model("Wide", **{f"field_{number}": (list[int], []) for number in range(70)})
    Wide.__module__ = __name__
    codec = Codec(Allowlist().adding(Wide))
    wide = [Wide(field_69=[1]), Wide()]
    codec.encode_items(wide)
    items, seen = codec.encode_items(wide)
    again = codec.decode_items(items, "", seen)
    assert again == codec.decode_items(items) == wide
    again[1].field_69.append(2)
    assert codec.encode_items(again, "", items, seen)[0] == (items[0], codec.encode(again[1])) != items


def test_what_is_not_a_number_is_as_before() -> None:
    items, seen = kept([Counted(kept=[math.nan, math.inf])])
    assert CODEC.encode_items([Counted(kept=[math.nan, math.inf])], "", items, seen)[0] == items


def test_a_deep_value_comes_back() -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    items, seen = kept([Counted(kept=deep)])
    assert CODEC.decode_items(items, "", seen) == [Counted(kept=deep)]
    inner = (again := CODEC.decode_items(items, "", seen))[0].kept
    while inner:
        inner = inner[0]
    inner.append("found")
    assert CODEC.encode_items(again, "", items, seen)[0] == (CODEC.encode(again[0]),) != items


ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3) | st.binary(max_size=3)
)
PLAIN = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=PLAIN, other=PLAIN)
def test_what_looks_the_same_has_the_same_bytes(one: Any, other: Any) -> None:
    first = HumanMessage("x", id="1", additional_kwargs={"k": one})
    items, seen = kept([first])
    assert CODEC.encode_items([copy.deepcopy(first)], "", items, seen)[0] is items
    assert CODEC.decode_items(items, "", seen) == [first]
    second = HumanMessage("x", id="1", additional_kwargs={"k": other})
    assert CODEC.encode_items([second], "", items, seen)[0] == (CODEC.encode(second),)


VALUES = st.builds(
    lambda texts, more: [
        HumanMessage(texts[0], id="1", additional_kwargs=more),
        AIMessage([{"type": "text", "text": texts[1], "more": more}], response_metadata={"k": [more]}),
        SystemMessage(texts[2], name=texts[0], extra=more) if texts[0] else SystemMessage(texts[2]),
        ToolMessage(texts[1], tool_call_id="c", artifact=more, status="error"),
        Counted(count=len(texts[0]), kept=more),
    ],
    st.lists(st.text(), min_size=3, max_size=3),
    st.dictionaries(st.text(max_size=40), PLAIN, max_size=20),
)


def shown(values: list[Any]) -> Any:
    """All that is to be known of models."""
    return [
        (type(value), repr(value.__dict__), value.__pydantic_fields_set__, value.__pydantic_extra__) for value in values
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=VALUES, data=st.data())
def test_what_is_used_again_is_as_it_was_and_nobody_elses(values: list[Any], data: st.DataObject) -> None:
    """Whatever of it others hold, and change at once or later."""
    items, seen = kept(values)
    used = CODEC.decode_items(items, "", seen)
    held = [part for part in parts_of(used) if data.draw(st.booleans())]
    changed = [data.draw(st.booleans()) for _ in held]
    for part, now in zip(held, changed, strict=True):
        if now:
            change_part(part)
    loaded = CODEC.decode_items(items, "", seen, used)
    assert shown(loaded) == shown(CODEC.decode_items(items))
    for part in held:
        change_part(part)
    assert shown(loaded) == shown(CODEC.decode_items(items))


def parts_of(value: Any) -> Iterator[Any]:
    """All in it that can be changed in place."""
    if isinstance(value, BaseModel):
        yield value
        yield value.__pydantic_fields_set__
        yield from parts_of(value.__dict__)
    elif isinstance(value, dict):
        yield value
        for item in value.values():
            yield from parts_of(item)
    elif isinstance(value, list):
        yield value
        for item in value:
            yield from parts_of(item)


def change_part(part: Any) -> None:
    match part:
        case BaseModel():
            part.__dict__["changed"] = True
        case set():
            part.add("changed")
        case dict():
            part["changed"] = True
        case list():
            part.append("changed")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=VALUES)
def test_many_are_read_as_each_is(values: list[Any]) -> None:
    items, _ = CODEC.encode_items([*values, *values])
    assert shown(CODEC.decode_items(items)) == shown([*map(CODEC.decode, items)]) == shown([*values, *values])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(values=VALUES, which=st.integers(0, 4), data=st.data())
def test_what_is_damaged_is_read_as_it_is_alone(values: list[Any], which: int, data: st.DataObject) -> None:
    """The same value, or the same error."""
    CODEC.decode_items(CODEC.encode_items(values)[0])  # all classes have been met
    item = bytearray(CODEC.encode(values[which]))
    if data.draw(st.booleans()):
        del item[data.draw(st.integers(0, len(item) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if item:
            item[data.draw(st.integers(0, min(len(item) - 1, 120)))] = data.draw(st.integers(0, 255))

    def outcome(read: Callable[[], list[Any]]) -> Any:
        try:
            found = read()
        except CheckpointCorruptionError as error:
            return str(error)
        return repr(found) if not isinstance(found[0], BaseModel) else shown(found)

    assert outcome(lambda: CODEC.decode_items((bytes(item),))) == outcome(lambda: [CODEC.decode(bytes(item))])


def test_a_class_that_changed_is_told_among_many() -> None:
    class Shape(BaseModel):
        sides: int = 3

    codec = Codec(Allowlist().adding(Shape))
    items, _ = codec.encode_items([Shape(), Shape(sides=4)])
    assert codec.decode_items(items) == [Shape(), Shape(sides=4)]
    more = (items[0], items[1].replace(b"sides", b"edges"))
    with pytest.raises(CheckpointCorruptionError, match="edges"):
        codec.decode_items(more, "channel 'x'")
    with pytest.raises(CheckpointCorruptionError, match="Shape"):
        Codec(Allowlist()).decode_items(items)


def test_nothing_is_left_behind() -> None:
    """Of ten thousand messages that were looked at, made and dropped."""
    values = messages()
    items, seen = kept(values)
    counts = []
    for _ in range(4):
        gc.collect()
        counts.append((sys.getallocatedblocks(), sys.getrefcount(HumanMessage), sys.getrefcount(values[1].content)))
        for _ in range(1000):
            again = CODEC.decode_items(items)
            again = CODEC.decode_items(items, "", seen)
            again.append(HumanMessage("more"))
            CODEC.encode_items(again, "", items, seen)
        del again
    assert counts[-1][1:] == counts[1][1:]
    assert abs(counts[-1][0] - counts[1][0]) < 500


def test_what_is_made_can_be_collected() -> None:
    """A message that leads back to itself is no leak."""

    class Found(HumanMessage):
        ends: list[str]

        def __del__(self) -> None:
            ended.append("ended")

    ended: list[str] = []
    codec = Codec(Allowlist().adding(Found))
    first = [Found("x", ends=[])]
    codec.encode_items(first)
    items, seen = codec.encode_items(first)
    (again,) = codec.decode_items(items, "", seen)
    again.additional_kwargs["self"] = again
    del again
    gc.collect()
    assert ended == ["ended"]


@pytest.mark.parametrize(
    ("before", "env"),
    [
        ("", {"PETAL_PURE_PYTHON": "1"}),
        ("import sys; sys.modules['petal.checkpoints.codec._many_models'] = None; ", {}),
    ],
    ids=["as it was asked for", "as it could not be compiled"],
)
def test_without_c_it_is_python(before: str, env: dict[str, str]) -> None:
    asked = f"{before}import petal.checkpoints.codec.many_models as models; print(models.IN_C, models.look.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", asked], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "petal.checkpoints.codec.many_models_in_python"]
