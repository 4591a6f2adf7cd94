"""Arguments for a tool or a structured answer, taken from a text as far as it holds them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|(?<!\w)'([^']+)'(?!\w)|`([^`]+)`")
_LEADING_WORDS = re.compile(r"^[\s:,(]*(?:(?:for|in|of|to|the|a|an|with|on|about|that|please)\b\s*)*", re.I)
_FORMATS = {
    "date": (r"\b\d{4}-\d\d-\d\d\b", "1970-01-01"),
    "date-time": (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)\b", "1970-01-01T00:00:00Z"),
    "time": (r"\b\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)?\b", "00:00:00Z"),
    "email": (r"\b[\w.+-]+@[\w-]+\.[\w.-]*\w\b", "demo@example.com"),
    "uri": (r"\bhttps?://\S+\b", "https://example.com"),
    "uuid": (r"\b[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}\b", "00000000-0000-0000-0000-000000000000"),
}
"""JSON Schema's format -> what it looks like in a text, and a value where the text has none."""


class NotInTextError(LookupError):
    """The text does not hold what a required parameter needs."""


def arguments_from(schema: Schema, text: str, *, invent: bool) -> dict[str, Any]:
    """A value for each required property of an object's schema, and for the others that the text names.

    Args:
        schema: JSON Schema of an object.
        text: `{…}` as it stands, else `name: value` pairs, then numbers and quoted strings in their order.
        invent: Whether a value that the text does not hold is made up, so that it fits the schema.

    Raises:
        NotInTextError: If a number or an object is not in the text, and none is invented.
    """
    if (stated := stated_object(text)) is not None:
        return stated
    return _Reading(schema, text, invent).properties(schema)


def stated_object(text: str) -> dict[str, Any] | None:
    """The first JSON object that is written out in a text."""
    for start in (found.start() for found in re.finditer(r"\{", text)):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
        except json.JSONDecodeError:
            continue
        return dict(value)
    return None


@dataclass(slots=True)
class _Reading:
    """One pass over a text that hands out its numbers and strings, each once."""

    root: Schema
    text: str
    invent: bool
    _numbers: Iterator[float] = field(init=False)
    _strings: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._numbers = iter([float(found[0]) for found in _NUMBER.finditer(_QUOTED.sub(" ", self.text))])
        self._strings = iter([next(filter(None, found.groups())) for found in _QUOTED.finditer(self.text)])

    def properties(self, schema: Schema) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        values = {}
        for name, property in schema.get("properties", {}).items():
            stated = self._stated(name)
            if name in required or stated is not None:
                values[name] = self._value(property, stated)
        return values

    def _stated(self, name: str) -> str | None:
        """What stands behind `name:`, `name=` or `name is`."""
        spoken = re.escape(name).replace("_", "[_ ]")
        found = re.search(rf"\b{spoken}(?:\s*[:=]\s*|\s+is\s+)(?:\"([^\"]*)\"|([^\s,;]+))", self.text, re.I)
        return None if found is None else found[1] if found[1] is not None else found[2].rstrip(".!?)")

    def _value(self, schema: Schema, stated: str | None = None) -> Any:
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(schema["enum"], stated)
        kind = schema.get("type")
        match kind[0] if isinstance(kind, list) else kind:
            case "integer" | "number" as number:
                return self._number(schema, stated, whole=number == "integer")
            case "boolean":
                said = (stated if stated is not None else self.text).lower()
                return not re.search(r"\b(no|not|false|off|never)\b", said)
            case "array":
                return [self._value(schema.get("items", {})) for _ in range(schema.get("minItems", 0))]
            case "object":
                return self.properties(schema)
            case "null":
                return None
            case _:
                return self._string(schema, stated)

    def _resolved(self, schema: Schema) -> Schema:
        """The schema itself: references followed, and of several the first that is not null."""
        while True:
            if "$ref" in schema:
                target: Any = self.root
                for part in schema["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
                schema = target
            elif several := schema.get("anyOf") or schema.get("oneOf"):
                schema = next((one for one in several if one.get("type") != "null"), several[0])
            elif "allOf" in schema:
                merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
                for one in schema["allOf"]:
                    merged |= self._resolved(one)
                schema = merged
            else:
                return schema

    def _choice(self, choices: list[Any], stated: str | None) -> Any:
        said = stated if stated is not None else self.text
        return next((c for c in choices if re.search(rf"\b{re.escape(str(c))}\b", said, re.I)), choices[0])

    def _number(self, schema: Schema, stated: str | None, *, whole: bool) -> int | float:
        found = _NUMBER.fullmatch(stated) if stated is not None else None
        number = float(found[0]) if found else next(self._numbers, None)
        if number is None or (whole and not number.is_integer()):
            if not self.invent:
                raise NotInTextError(self.text)
            number = math.floor(number) if number is not None else 0
        step = schema.get("multipleOf") or (1 if whole else 0)
        low = schema.get("minimum", -math.inf)
        if (above := schema.get("exclusiveMinimum")) is not None:
            low = max(low, above + (step or 1))
        high = schema.get("maximum", math.inf)
        if (below := schema.get("exclusiveMaximum")) is not None:
            high = min(high, below - (step or 1))
        number = min(max(number, low), high)
        if step:
            number = math.ceil(number / step) * step
            number = number if number <= high else number - step
        return int(number) if whole else number

    def _string(self, schema: Schema, stated: str | None) -> str:
        if (known := _FORMATS.get(schema.get("format", ""))) is not None:
            looks, otherwise = known
            found = re.search(looks, stated or self.text, re.I)
            return found[0] if found else otherwise
        if (pattern := schema.get("pattern")) is not None:
            candidates = [stated or "", *self._strings, *self.text.split(), "a", "A", "0"]
            return next((one for one in candidates if re.search(pattern, one)), self.text)
        value = stated if stated is not None else next(self._strings, None)
        if value is None:
            value = _LEADING_WORDS.sub("", self.text).strip().rstrip(".!?)") or self.text
        return value[: schema.get("maxLength")].ljust(schema.get("minLength", 0), ".")
