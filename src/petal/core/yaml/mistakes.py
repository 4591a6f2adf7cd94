"""Everything that is wrong with a document, gathered into one error that reads well."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from petal.core.config.agent import LLMConfig
from petal.core.config.checkpointer import redacted
from petal.core.config.secrecy import is_secret
from petal.core.config.steps import ModelOptions
from petal.core.yaml.document import Document, Place
from petal.core.yaml.format import tag_of
from petal.errors import YAMLConfigurationError, nearest

_VARIABLE = re.compile(r"\$\{(\w+)")
_LONGEST = 60

_ALLOWED = {
    "string": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "dict": "a mapping",
    "model": "a mapping",
    "mapping": "a mapping",
    "dataclass": "a mapping",
    "list": "a list",
    "tuple": "a list",
}
"""What is allowed, by the first word of pydantic's name of the mistake."""

_SHORT_FORMS = {
    "ApprovalConfig": "true, the question",
    "LLMConfig": "'provider:model'",
    "MemoryCheckpointer": "a database URL",
    "Retry": "a whole number",
    "StateEntry": "the name of a type",
    "ToolEntry": "'package.module:name'",
}
"""What is allowed beside a mapping, by its model."""


class Mistakes:
    """What is wrong with a document.

    Args:
        document: The document, to tell lines and to keep what must not be shown.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: list[tuple[Place, str, BaseException | None]] = []
        for place, problem in document.problems:
            self._note(place, problem)

    def __bool__(self) -> bool:
        return bool(self._found)

    def has(self, place: Place) -> bool:
        """Whether the document has a part at a place."""
        return place in self._document.lines

    def add(self, place: Place, problem: str, cause: BaseException | None = None) -> None:
        """Note a mistake.

        Args:
            place: Where.
            problem: What was found, what is allowed, the nearest known name. What came from `${…}` is put back as
                it was written.
            cause: The exception that told it.
        """
        self._note(place, self._without_secrets(_sentence(problem)), cause)

    def add_error(self, place: Place, error: Exception) -> None:
        """Note what another part of Petal raised, its cause along with it."""
        self.add(place, str(error), error.__cause__)

    def add_validation(self, error: ValidationError, model: type[BaseModel]) -> None:
        """Note what pydantic found.

        Args:
            error: From validating the document against `model`.
            model: The model.
        """
        unread = {place for place, _ in self._document.problems}
        wrong: dict[Place, list[str]] = {}
        for mistake in error.errors(include_url=False):
            place = self._place(mistake)
            if place in unread:
                continue
            match mistake["type"]:
                case "missing":
                    self._note(place, f"The key {str(place[-1])!r} is missing.")
                case "extra_forbidden" | "invalid_key":
                    self._note(place, unknown("key", str(place[-1]), known_keys(model, mistake["loc"][:-1])))
                case "value_error":
                    self.add(place, str(mistake["ctx"]["error"]))
                case "too_short" if self._value(place):
                    pass  # its items are wrong, which is said of each
                case _ if mistake["loc"][-1:] == ("[key]",):
                    self._note(place, "This key is no text; put it in quotes.")
                case _:
                    wrong.setdefault(place, []).append(_allowed(mistake))
        for place, allowed in wrong.items():
            found = self.shown(place)
            self._note(place, f"Found {found}; allowed: {' or '.join(dict.fromkeys(allowed))}.{_guess(found, allowed)}")

    def raise_any(self) -> None:
        """Raise what was noted, if anything was.

        Raises:
            YAMLConfigurationError: If anything was.
        """
        if self._found:
            error = self.error()
            raise error from error.__cause__

    def error(self) -> YAMLConfigurationError:
        """What was noted, in the order of the lines: the first mistake, which carries the others."""
        ordered = sorted(self._found, key=lambda mistake: self._document.line(mistake[0]) or 0)
        pairs = [(self._document.error(place, text), cause) for place, text, cause in ordered]
        (first, cause), *others = {str(error): (error, cause) for error, cause in pairs}.values()
        further = tuple(error for error, _ in others)
        error = YAMLConfigurationError(first.file, first.line, first.key, first.problem, further)
        error.__cause__ = cause
        return error

    def shown(self, place: Place) -> str:
        """The value at a place, as it may be shown in a message."""
        if place in self._document.written:
            return repr(self._document.written[place])
        value = self._value(place)
        match value:
            case None:
                return "nothing"
            case dict():
                return "a mapping"
            case list():
                return "a list" if value else "an empty list"
            case _ if _is_secret(place):
                return "a value that is not shown"
            case bool():
                return str(value).lower()
            case str():
                text = redacted(value)
                return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
            case _:
                return str(value)

    def _note(self, place: Place, problem: str, cause: BaseException | None = None) -> None:
        self._found.append((place, problem, cause))

    def _value(self, place: Place) -> Any:
        value: Any = self._document.value
        for part in place:
            value = value[part]
        return value

    def _place(self, mistake: ErrorDetails) -> Place:
        """Where a mistake stands: pydantic's location without the parts that are not in the document."""
        value: Any = self._document.value
        place: Place = ()
        for part in mistake["loc"]:
            match value:
                case dict():
                    keys = [key for key in value if key == part or str(key) == str(part)]
                case list():
                    keys = [part] if isinstance(part, int) and part < len(value) else []
                case _:
                    keys = []
            if keys:
                place, value = (*place, keys[0]), value[keys[0]]
        match mistake["type"]:
            case "missing":
                return (*place, mistake["loc"][-1])
            case "union_tag_invalid":
                return (*place, "type")
            case _:
                return place

    def _without_secrets(self, problem: str) -> str:
        """A message in which what came from `${…}` stands as it was written, and what is secret not at all."""
        shown: dict[str, str] = {}
        for at, value in _texts(self._document.value, ()):
            written = self._document.written.get(at)
            if written is not None:
                shown[value] = written
                shown |= {os.environ.get(name, ""): f"${{{name}}}" for name in _VARIABLE.findall(written)}
            elif _is_secret(at):
                shown[value] = "***"
        for value in sorted(shown, key=len, reverse=True):
            for text in (value, repr(value)[1:-1]):
                if text and _concerns(problem, text):
                    problem = problem.replace(text, shown[value])
        return redacted(problem)


def known_keys(model: type[BaseModel], location: Place) -> list[str]:
    """The keys that a mapping may have.

    Args:
        model: The model of the whole document.
        location: Where the mapping stands, as pydantic tells it.
    """
    models = {model}
    for part in location:
        fields = [field for m in models for name, field in m.model_fields.items() if part in (name, field.alias)]
        if fields:
            models = {m for field in fields for m in _models(field.annotation)}
        elif tagged := {m for m in models if part in _tags(m)}:
            models = tagged
    known = [field.alias or name for m in models for name, field in m.model_fields.items()]
    if any(issubclass(m, ModelOptions) for m in models):
        known += LLMConfig.model_fields
    return list(dict.fromkeys(known))


def unknown(what: str, name: str, known: Iterable[str], more: str = "") -> str:
    """A sentence that says that a name is unknown, which ones are known, and which is the nearest."""
    known = list(dict.fromkeys(known))
    guess = nearest(name, known)
    hint = f" Did you mean {guess!r}?" if guess else ""
    return f"There is no {what} {name!r}.{hint} Known: {', '.join(known) or 'none'}{more}."


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _tags(model: type[BaseModel]) -> list[str]:
    field = model.model_fields.get("type")
    return [tag_of(value) for value in get_args(field.annotation)] if field else []


def _allowed(mistake: ErrorDetails) -> str:
    context = mistake.get("ctx", {})
    match mistake["type"]:
        case "literal_error":
            return str(context["expected"])
        case "union_tag_invalid":
            return re.sub(r"[<>]|, '<url>'", "", str(context["expected_tags"]))
        case "model_type" | "model_attributes_type" if context["class_name"] in _SHORT_FORMS:
            return f"{_SHORT_FORMS[context['class_name']]} or a mapping"
        case "greater_than":
            return f"a number greater than {context['gt']:g}"
        case "greater_than_equal":
            return f"a number not less than {context['ge']:g}"
        case "too_short":
            return "at least one"
        case kind:
            return _ALLOWED.get(kind.partition("_")[0]) or mistake["msg"]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def _guess(found: str, allowed: Iterable[str]) -> str:
    names = [name for text in allowed for name in re.findall(r"'([^']*)'", text)]
    guess = nearest(found.strip("'"), names)
    return f" Did you mean {guess!r}?" if guess else ""


def _is_secret(place: Place) -> bool:
    return any(isinstance(part, str) and is_secret(part) for part in place)


def _concerns(problem: str, text: str) -> bool:
    """Whether the text stands in a message; short ones only count as whole words, since they stand in others too."""
    return text in problem if len(text) > 3 else re.search(rf"(?<!\w){re.escape(text)}(?!\w)", problem) is not None


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _texts(inner, (*place, key))
        case list():
            for index, inner in enumerate(value):
                yield from _texts(inner, (*place, index))
        case str():
            yield place, value
