"""How the types of the standard library come apart into plain data, and together again."""

from __future__ import annotations

import ipaddress
import pathlib
import re
import types
import typing
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

from petal.checkpoints.codec.errors import Refusal

FACTORIES: frozenset[type] = frozenset(
    {bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple, Counter, OrderedDict, deque}
)
"""What a defaultdict may make. A type of the user's would be called by whoever looks up a missing key."""

_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
_FLAGS = int(re.ASCII | re.IGNORECASE | re.LOCALE | re.MULTILINE | re.DOTALL | re.UNICODE | re.VERBOSE)


@dataclass(frozen=True, slots=True)
class Standard:
    """One type: `take` gives data that holds plainer values only, `make` the value again."""

    name: str
    cls: type
    take: Callable[[Any], Any]
    make: Callable[[Any], Any]


def pairs(mapping: dict[Any, Any]) -> list[Any]:
    """A dict's keys and values in turn."""
    return [part for item in dict.items(mapping) for part in item]


def mapping(parts: list[Any]) -> dict[Any, Any]:
    """The dict of what `pairs` gave."""
    keys = parts[::2]
    return dict(zip(keys, parts[1::2], strict=True))


def _timezone(parts: list[Any]) -> timezone:
    offset, *name = parts
    return timezone(offset, *name)


def _take_zone(zone: ZoneInfo) -> str:
    key: str | None = zone.key
    if key is None or not _ZONE.fullmatch(key):
        raise Refusal(ZoneInfo, "it has no key of the zone database by which it could be found again.")
    return key


def _make_zone(key: str) -> ZoneInfo:
    if not _ZONE.fullmatch(key):
        raise ValueError(f"{key!r} names no time zone")
    return ZoneInfo(key)


def _take_moment(moment: datetime | time) -> list[Any]:
    day = [moment.year, moment.month, moment.day] if isinstance(moment, datetime) else []
    return [*day, moment.hour, moment.minute, moment.second, moment.microsecond, moment.fold, moment.tzinfo]


def _datetime(parts: list[Any]) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = parts
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _time(parts: list[Any]) -> time:
    hour, minute, second, microsecond, fold, zone = parts
    return time(hour, minute, second, microsecond, zone, fold=fold)


def _take_timedelta(span: timedelta) -> list[int]:
    return [span.days, span.seconds, span.microseconds]


def _take_uuid(id: UUID) -> list[Any]:
    return [id.bytes, id.is_safe.value]


def _uuid(parts: list[Any]) -> UUID:
    data, safe = parts
    return UUID(bytes=data, is_safe=SafeUUID(safe))


def _fraction(parts: list[int]) -> Fraction:
    numerator, denominator = parts
    return Fraction(numerator, denominator)


def _complex(parts: list[float]) -> complex:
    real, imaginary = parts
    return complex(real, imaginary)


def _take_pattern(pattern: re.Pattern[Any]) -> list[Any]:
    if pattern.flags & ~_FLAGS:
        raise Refusal(re.Pattern, "one of its flags does something when it is compiled (re.DEBUG); leave it out.")
    return [pattern.pattern, pattern.flags]


def _pattern(parts: list[Any]) -> re.Pattern[Any]:
    text, flags = parts
    if flags & ~_FLAGS:
        raise ValueError(f"{flags} are no flags of a pattern")
    return re.compile(text, flags)


def _ordered_pairs(value: OrderedDict[Any, Any]) -> list[Any]:
    # An OrderedDict has an order of its own, which move_to_end changes and dict.items does not know.
    return [part for item in OrderedDict.items(value) for part in item]


def _take_defaultdict(value: defaultdict[Any, Any]) -> list[Any]:
    factory = value.default_factory
    if factory is not None and factory not in FACTORIES:
        names = ", ".join(sorted(cls.__name__ for cls in FACTORIES))
        raise Refusal(defaultdict, f"its factory is {factory!r}; one that can be saved is None or one of {names}.")
    return [factory, *pairs(value)]


def _defaultdict(parts: list[Any]) -> defaultdict[Any, Any]:
    factory, *items = parts
    if factory is not None and factory not in FACTORIES:
        raise ValueError(f"{factory!r} is no factory of a defaultdict")
    return defaultdict(factory, mapping(items))


def _counter(parts: list[Any]) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    dict.update(counter, mapping(parts))
    return counter


def _deque(parts: list[Any]) -> deque[Any]:
    maxlen, *items = parts
    return deque(items, maxlen)


def _range(parts: list[int]) -> range:
    start, stop, step = parts
    return range(start, stop, step)


def _slice(parts: list[Any]) -> slice:
    start, stop, step = parts
    return slice(start, stop, step)


def _take_alias(alias: Any) -> list[Any]:
    parts = [typing.get_origin(alias), list(typing.get_args(alias))]
    if not isinstance(parts[0], type) or type(again := _alias(parts)) is not type(alias) or again != alias:
        raise Refusal(type(alias), f"{alias!r} is not written as a type and its arguments.")
    return parts


def _alias(parts: list[Any]) -> Any:
    origin, arguments = parts
    if not isinstance(origin, type):
        raise ValueError(f"{origin!r} is no type, so it is generic in nothing")
    return origin[tuple(arguments)]  # type: ignore[index]  # most are generic, and another one says so


def _only(value: Any) -> Callable[[Any], Any]:
    def make(parts: Any) -> Any:
        if parts is not None:
            raise ValueError(f"{value!r} has no parts")
        return value

    return make


def _nothing(_: Any) -> None:
    return None


def _text_of(cls: Callable[[str], Any]) -> Callable[[Any], Any]:
    def make(text: Any) -> Any:
        if type(text) is not str:
            raise ValueError(f"{text!r} is no text")
        return cls(text)

    return make


def _paths() -> list[Standard]:
    kinds: list[type] = [pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path())]
    return [Standard(cls.__name__, cls, str, _text_of(cls)) for cls in kinds]


def _addresses() -> list[Standard]:
    kinds: list[type] = [
        getattr(ipaddress, f"IPv{version}{kind}") for version in "46" for kind in ("Address", "Interface", "Network")
    ]
    return [Standard(cls.__name__, cls, str, _text_of(cls)) for cls in kinds]


STANDARDS: tuple[Standard, ...] = (
    Standard("datetime", datetime, _take_moment, _datetime),
    Standard("date", date, lambda day: [day.year, day.month, day.day], lambda parts: date(*parts)),
    Standard("time", time, _take_moment, _time),
    Standard("timedelta", timedelta, _take_timedelta, lambda parts: timedelta(*parts)),
    # What pickle hands to timezone's constructor: the offset, and the name if it was given one.
    Standard("timezone", timezone, lambda zone: list(zone.__getinitargs__()), _timezone),
    Standard("ZoneInfo", ZoneInfo, _take_zone, _make_zone),
    Standard("Decimal", Decimal, str, _text_of(Decimal)),
    Standard("Fraction", Fraction, lambda value: [value.numerator, value.denominator], _fraction),
    Standard("complex", complex, lambda value: [value.real, value.imag], _complex),
    Standard("UUID", UUID, _take_uuid, _uuid),
    Standard("Pattern", re.Pattern, _take_pattern, _pattern),
    Standard("range", range, lambda value: [value.start, value.stop, value.step], _range),
    Standard("slice", slice, lambda value: [value.start, value.stop, value.step], _slice),
    Standard("deque", deque, lambda value: [value.maxlen, *value], _deque),
    Standard("OrderedDict", OrderedDict, _ordered_pairs, lambda parts: OrderedDict(mapping(parts))),
    Standard("Counter", Counter, pairs, _counter),
    Standard("defaultdict", defaultdict, _take_defaultdict, _defaultdict),
    Standard("Ellipsis", type(...), _nothing, _only(...)),
    Standard("alias", types.GenericAlias, _take_alias, _alias),
    # What `Box[int]` is, when Box is a Generic of the program's.
    Standard("alias", type(typing.Sequence[int]), _take_alias, _alias),
    *_paths(),
    *_addresses(),
)

TYPES: dict[str, type] = {
    **{cls.__name__: cls for cls in (*FACTORIES, object, type(None), memoryview, type)},
    **{standard.name: standard.cls for standard in STANDARDS if standard.name not in {"alias", "Ellipsis"}},
}
"""Types that may themselves be saved as values, by the name under which they are."""
