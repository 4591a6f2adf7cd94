"""Messages that look as before are not encoded again, and whatever is not quite as before is."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy
import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel, ConfigDict, PrivateAttr

from petal.checkpoints.allowlist import Allowlist
from petal.checkpoints.codec import Codec
from petal.checkpoints.codec.looks import look


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
    items, looks = kept(messages())
    assert None not in looks
    again, same = CODEC.encode_items(CODEC.decode_items(items), "", items, looks)
    assert [id(item) for item in again] == [id(item) for item in items]
    assert [id(one) for one in same] == [id(one) for one in looks]


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
    items, looks = kept(messages())
    values = CODEC.decode_items(items, "", looks)
    change(values)
    assert CODEC.encode_items(values, "", items, looks)[0] == tuple(map(CODEC.encode, values))


def test_what_is_made_again_shares_nothing() -> None:
    items, looks = kept(messages())
    first, second = CODEC.decode_items(items, "", looks), CODEC.decode_items(items, "", looks)
    assert first == second == messages()
    assert [set(value.__pydantic_fields_set__) for value in first] == [
        set(value.__pydantic_fields_set__) for value in messages()
    ]
    for change in (CHANGES["an entry of an empty dict"], CHANGES["a bool for a number"], CHANGES["another field set"]):
        change(first)
    assert second == CODEC.decode_items(items, "", looks) == messages()
    assert second[1].__pydantic_fields_set__ == messages()[1].__pydantic_fields_set__


def test_a_codec_that_never_saw_a_class_reads_the_bytes() -> None:
    """It may not be allowed there."""
    items, looks = kept(messages())
    assert Codec(Allowlist()).decode_items(items, "", looks) == messages()


@pytest.mark.parametrize(
    "model",
    [
        Counted(count=1),
        Counted(count=True, more="extra"),
        Secretive(),
        HumanMessage("hi", additional_kwargs={"at": datetime(2026, 1, 1, tzinfo=UTC)}),
    ],
    ids=["a number", "an extra", "a private one", "a date"],
)
def test_models_of_more_than_text_have_no_look(model: BaseModel) -> None:
    assert look(model) is None
    items, looks = kept([model, HumanMessage("hi")])
    assert looks[0] is None
    assert CODEC.encode_items([model, HumanMessage("hi")], "", items, looks)[0] == items
    assert CODEC.decode_items(items, "", looks) == [model, HumanMessage("hi")]


def test_a_model_without_extras_is_made_again() -> None:
    class Plain(BaseModel):
        text: str = ""

    codec = Codec(Allowlist().adding(Plain))
    codec.encode_items([Plain()])
    items, looks = codec.encode_items([Plain(text="x"), Plain()])
    made = codec.decode_items(items, "", looks)
    assert made == [Plain(text="x"), Plain()]
    assert made[0].__pydantic_extra__ is None


def test_the_garbage_collector_rests_and_goes_on() -> None:
    many = [HumanMessage(str(n)) for n in range(200)]
    items, _ = kept(many)
    assert CODEC.decode_items(items) == many
    assert gc.isenabled()
    with pytest.raises(Exception, match="cannot be read"):
        CODEC.decode_items([b"\xc1"] * 200)
    assert gc.isenabled()
    gc.disable()
    try:
        assert CODEC.decode_items(items) == many
        assert not gc.isenabled()
    finally:
        gc.enable()
