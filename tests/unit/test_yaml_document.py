"""YAML text as plain data: which YAML, where each part stands, and what the environment gives."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petal.core.yaml.document import Document, key_text, read
from petal.core.yaml.expansion import ExpansionError, expand
from petal.errors import YAMLConfigurationError

plain = st.text(st.characters(exclude_characters="$"))
printable = st.text(
    st.characters(exclude_characters="$", exclude_categories=("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"))
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)


def value(text: str) -> Any:
    return read(text, None).value


def failure(text: str) -> YAMLConfigurationError:
    with pytest.raises(YAMLConfigurationError) as raised:
        read(text, Path("agent.yaml"))
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    return raised.value


@given(plain)
def test_text_without_a_dollar_stays(text: str) -> None:
    assert expand(text, {}) == text


@given(st.text())
def test_a_doubled_dollar_is_a_dollar(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


@given(plain, names, st.text(), plain)
def test_a_variable_is_put_in_as_it_is(before: str, name: str, value: str, after: str) -> None:
    """What it holds is not expanded again."""
    assert expand(f"{before}${{{name}}}{after}", {name: value}) == before + value + after


@given(names, st.text(st.characters(exclude_characters="}")))
def test_a_default_stands_for_what_is_unset_or_empty(name: str, default: str) -> None:
    text = f"${{{name}:-{default}}}"
    assert expand(text, {}) == expand(text, {name: ""}) == default
    assert expand(text, {name: "set"}) == "set"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$", "$"),
        ("$HOME", "$HOME"),
        ("5$ {x}", "5$ {x}"),
        ("$$${A}", "$a"),
        ("$${A}", "${A}"),
        ("${A}${A}", "aa"),
        ("${E}", ""),
    ],
)
def test_dollars(text: str, expected: str) -> None:
    assert expand(text, {"A": "a", "E": ""}) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${", "'${' is not closed by '}'; write $${ for the characters themselves."),
        ("x ${A", "'${' is not closed by '}'; write $${ for the characters themselves."),
        (
            "${}",
            "'${}' names no environment variable; write ${NAME} or ${NAME:-default}, or $${ for the "
            "characters themselves.",
        ),
        (
            "${A-b}",
            "'${A-b}' names no environment variable; write ${NAME} or ${NAME:-default}, or $${ for the "
            "characters themselves.",
        ),
        (
            "${HSOT}",
            "The environment variable 'HSOT' is not set. Did you mean 'HOST'? Set it, write ${HSOT:-default}, "
            "or $${HSOT} for the characters themselves.",
        ),
    ],
)
def test_an_expansion_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ExpansionError) as raised:
        expand(text, {"HOST": "h", "A": "a"})
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[
            (word, word)
            for word in ("yes", "no", "on", "off", "Yes", "NO", "y", "n", "12:30", "2024-01-01", "1_000", "=")
        ],
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("12", 12),
        ("-0", 0),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("'true'", "true"),
        ('"5"', "5"),
        ("!!str 5", "5"),
        ("!!int '5'", 5),
        ("!!float 5", 5.0),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, expected: Any) -> None:
    found = value(f"key: {text}")["key"]
    assert (found, type(found)) == (expected, type(expected))


def test_not_a_number() -> None:
    assert math.isnan(value("key: .nan")["key"])


def test_keys_are_what_they_look_like() -> None:
    assert value("yes: 1\ntrue: 2\n3: 4\nnull: 5\n? six\n: 7\n") == {"yes": 1, True: 2, 3: 4, None: 5, "six": 7}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | printable,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(printable, inner, max_size=4),
        max_leaves=10,
    )
)
def test_json_is_read_as_it_is(data: Any) -> None:
    assert value(json.dumps(data, ensure_ascii=False)) == data


def test_every_part_knows_its_line() -> None:
    document = read("a: 1\nb:\n  - x\n  -\n    c: 2\nd: {e: 3,\n  f: 4}\n", None)
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 5,
        ("b", 1, "c"): 5,
        ("d",): 6,
        ("d", "e"): 6,
        ("d", "f"): 7,
    }
    assert document.line(("b", 1, "zzz", "y")) == 5
    assert Document(None).line(("a",)) is None


def test_a_place_as_text() -> None:
    assert key_text(("steps", 0, "config", "provider")) == "steps[0].config.provider"
    assert key_text((0, "routes", True)) == "[0].routes.true"
    assert key_text((True, None)) == "true.null"
    assert key_text(()) == ""


def test_anchors_stand_for_what_they_name() -> None:
    assert value("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


def test_a_byte_order_mark_is_no_text() -> None:
    assert value("\ufeffname: x") == {"name": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "agent.yaml: The file is empty; an agent has at least a list of steps."),
        ("# nothing\n", "agent.yaml: The file is empty; an agent has at least a list of steps."),
        ("a: 1\nb: [1, 2\n", "agent.yaml:3: This is no YAML: expected ',' or ']', but got '<stream end>', "),
        ("a: 1\n  b: 2\n", "agent.yaml:2: This is no YAML: mapping values are not allowed here."),
        ("a: 1\n\tb: 2\n", "agent.yaml:2: This is no YAML: "),
        ("a: *nowhere\n", "agent.yaml:1: This is no YAML: found undefined alias 'nowhere'."),
        ("a: 1\n---\nb: 2\n", "agent.yaml:2: This is no YAML: but found another document, expected a single document"),
        ("a: 1\nb: \x00\n", "agent.yaml:2: The character U+0000 is not allowed in YAML; write it as an escape."),
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "agent.yaml:4: b.c: The key is given twice; the first is on line 3."),
        ("1: a\ntrue: b\n", "agent.yaml:2: true: The key is given twice; the first is on line 1."),
        ("a: 1\n[b]: 2\n", "agent.yaml:2: A key is a word, not a list or mapping."),
        ("x:\n  ? {b: 1}\n  : 2\n", "agent.yaml:2: x: A key is a word, not a list or mapping."),
        ("!!binary b: 1\n", "agent.yaml:1: The tag 'tag:yaml.org,2002:binary' is not allowed."),
        ("a: &x [*x]\n", "agent.yaml:1: a[0]: An alias stands inside of what it names."),
        ("a: !!int b\n", "agent.yaml:1: a: 'b' is no int."),
        (f"a: {'9' * 5000}\n", "agent.yaml:1: a: The number has too many digits."),
        ("[" * 5000, "agent.yaml: The document is nested too deeply."),
        *[
            (f"a: 1\nb: {tagged}\n", f"agent.yaml:2: b: The tag {shown!r} is not allowed; only plain data is.")
            for tagged, shown in [
                ("!thing x", "!thing"),
                ("!!python/object/apply:os.system ['true']", "!!python/object/apply:os.system"),
                ("!!python/name:os.system ''", "!!python/name:os.system"),
                ("!!timestamp 2024-01-01", "!!timestamp"),
                ("!!set {x}", "!!set"),
                ("!!binary aGk=", "!!binary"),
                ("!!omap [a: 1]", "!!omap"),
            ]
        ],
    ],
)
def test_text_that_is_no_plain_document(text: str, message: str) -> None:
    assert str(failure(text)).startswith(message)


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert failure("\n".join(lines)).problem == "The document has more than 100000 parts, aliases counted each time."


def test_variables_are_expanded_after_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value cannot become a key, a list, a number or a comment."""
    monkeypatch.setenv("PETAL_T", "x\nsteps: [evil]  # ${HOME} *a")
    document = read("a: ${PETAL_T}\nb: 'n${PETAL_N:-1}'\n${PETAL_T}: key\nc: $$5\n", None)
    assert document.value == {"a": "x\nsteps: [evil]  # ${HOME} *a", "b": "n1", "${PETAL_T}": "key", "c": "$5"}
    assert document.written == {("a",): "${PETAL_T}", ("b",): "n${PETAL_N:-1}", ("c",): "$$5"}
    assert document.problems == []


def test_what_cannot_be_expanded_is_noted_with_its_place() -> None:
    document = read("a:\n  - ${PETAL_NOT_SET}\n  - ${\n", None)
    assert [(key_text(place), problem.partition(".")[0]) for place, problem in document.problems] == [
        ("a[0]", "The environment variable 'PETAL_NOT_SET' is not set"),
        ("a[1]", "'${' is not closed by '}'; write $${ for the characters themselves"),
    ]
