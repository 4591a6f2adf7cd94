"""YAML text as plain data that knows where each part of it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from petal.core.yaml.expansion import ExpansionError, expand
from petal.errors import YAMLConfigurationError

Place = tuple[Any, ...]
"""Keys and indexes that lead from the whole document to a part of it."""

MAX_PARTS = 100_000
"""Parts of a document at most, so that aliases of aliases cannot fill the memory."""

_TAG = "tag:yaml.org,2002:"
_SCALARS: Mapping[str, tuple[str, str]] = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""The scalars of YAML 1.2's core schema that are no text, and the characters they begin with: `yes`, `no`, `on`,
`off`, `12:30` and dates are text, so that a route may be called `yes`."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - as in the base class, whose resolvers are those of YAML 1.1


for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        _TAG + _name, re.compile(f"(?:{_pattern})\\Z"), [mark.replace("\0", "") for mark in _first]
    )


def key_text(place: Place) -> str:
    """A place as a dotted path: `steps[0].config.provider`."""
    text = ""
    for part in place:
        if isinstance(part, int) and not isinstance(part, bool):
            text += f"[{part}]"
        else:
            word = {True: "true", False: "false", None: "null"}.get(part, part)
            text += f".{word}" if text else str(word)
    return text


@dataclass(slots=True)
class Document:
    """A YAML document as plain data."""

    file: Path | None
    value: Any = None
    """Mappings, lists and scalars, with `${…}` expanded."""
    lines: dict[Place, int] = field(default_factory=dict)
    """The line, counted from 1, of each part; of a mapping's part the line of its key."""
    written: dict[Place, str] = field(default_factory=dict)
    """The text of each part that held `${…}`, as it was before."""
    problems: list[tuple[Place, str]] = field(default_factory=list)
    """What could not be expanded."""
    parts: int = 0

    def line(self, place: Place) -> int | None:
        """The line of a place, or of the nearest part around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)

    def error(self, place: Place, problem: str) -> YAMLConfigurationError:
        """An error that points at a place."""
        return YAMLConfigurationError(self.file, self.line(place), key_text(place), problem)


def read(text: str, file: Path | None) -> Document:
    """The document that a text holds.

    Args:
        text: One YAML document.
        file: Where it comes from, for messages.

    Raises:
        YAMLConfigurationError: If the text is no YAML, is empty, holds a key twice, a tag, or a reference to itself.
    """
    document = Document(file)
    try:
        node = _composed(text.removeprefix("\ufeff"))
        if node is None:
            raise YAMLConfigurationError(file, None, "", "The file is empty; an agent has at least a list of steps.")
        document.value = _built(document, node, (), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.problem, error.context) if part)
        line = mark.line + 1 if mark else None
        raise YAMLConfigurationError(file, line, "", f"This is no YAML: {problem}.") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YAMLConfigurationError(
            file, line, "", f"The character U+{error.character:04X} is not allowed in YAML; write it as an escape."
        ) from None
    except RecursionError:
        raise YAMLConfigurationError(file, None, "", "The document is nested too deeply.") from None
    return document


def _composed(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _built(document: Document, node: yaml.Node, place: Place, around: tuple[int, ...]) -> Any:
    document.parts += 1
    document.lines.setdefault(place, node.start_mark.line + 1)
    if document.parts > MAX_PARTS:
        raise document.error(place, f"The document has more than {MAX_PARTS} parts, aliases counted each time.")
    if id(node) in around:
        raise document.error(place, "An alias stands inside of what it names.")
    around = (*around, id(node))
    kind = node.tag.removeprefix(_TAG)
    match node:
        case yaml.MappingNode() if kind == "map":
            return _mapping(document, node, place, around)
        case yaml.SequenceNode() if kind == "seq":
            return [_built(document, item, (*place, index), around) for index, item in enumerate(node.value)]
        case yaml.ScalarNode() if kind == "str":
            return _expanded(document, node.value, place)
        case yaml.ScalarNode() if kind in _SCALARS:
            return _scalar(document, node, kind, place)
        case _:
            shown = f"!!{kind}" if kind != node.tag else node.tag
            raise document.error(place, f"The tag {shown!r} is not allowed; only plain data is.")


def _mapping(document: Document, node: yaml.MappingNode, place: Place, around: tuple[int, ...]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line, around_it = key_node.start_mark.line + 1, key_text(place)
        if not isinstance(key_node, yaml.ScalarNode):
            raise YAMLConfigurationError(document.file, line, around_it, "A key is a word, not a list or mapping.")
        kind = key_node.tag.removeprefix(_TAG)
        if kind == "str":
            key: Any = key_node.value
        elif kind in _SCALARS:
            key = _scalar(document, key_node, kind, place)
        else:
            raise YAMLConfigurationError(document.file, line, around_it, f"The tag {key_node.tag!r} is not allowed.")
        inner = (*place, key)
        if key in found:
            first = document.lines[inner]
            raise YAMLConfigurationError(
                document.file, line, key_text(inner), f"The key is given twice; the first is on line {first}."
            )
        document.lines[inner] = line
        found[key] = _built(document, value_node, inner, around)
    return found


def _scalar(document: Document, node: yaml.ScalarNode, kind: str, place: Place) -> Any:
    text = node.value
    if not re.fullmatch(_SCALARS[kind][0], text):
        raise document.error(place, f"{text!r} is no {kind}.")
    try:
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)
            case _:
                return float(re.sub(r"\.(?=[a-zA-Z])", "", text))
    except ValueError:
        raise document.error(place, "The number has too many digits.") from None


def _expanded(document: Document, text: str, place: Place) -> str:
    try:
        expanded = expand(text)
    except ExpansionError as error:
        document.problems.append((place, str(error)))
        return text
    if expanded != text:
        document.written[place] = text
    return expanded
