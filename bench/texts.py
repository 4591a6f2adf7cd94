"""Text that compresses like English, made once so that no measured turn pays for it."""

from __future__ import annotations

import random
from functools import cache
from zlib import crc32

SAID = 600
"""Bytes of one message."""
BOOK_BYTES = 1_300_000
"""More than the longest conversation says, so that within one nothing is said twice."""

_COMMON = (
    "the of and to in that is was for on with as it be by this which or from at an were are not have had has but "
    "one all their there we when more can would into has who so no what up out about than other time could them only "
    "its now may any such like then some these two made between after over first most new through being because "
    "where much before also under years way many down people last just same those still house water small night "
    "between world without every hand great found place long little never second later children called country "
    "question against business morning paper written interest government during certain river system garden window "
    "suddenly evening perhaps letter answer remember weather several enough company report number general light "
    "across together example message agent memory travel station ticket price because whether around tomorrow "
    "yesterday harbour engine mountain bridge village doctor teacher student machine picture language science music"
)
_SYLLABLES = "ba ce di fo gu ha jo ka le mi no pra que ri so ta ur ve wo xi yo za stra lin mer ton"


@cache
def _book() -> str:
    """Common words, the commonest most often, and now and then a name or a number."""
    chance = random.Random(20)
    common, syllables = _COMMON.split(), _SYLLABLES.split()
    words = []
    for kind in (chance.random() for _ in range(BOOK_BYTES // 5)):
        if kind < 0.08:
            words.append("".join(chance.choices(syllables, k=chance.randint(2, 4))).capitalize())
        elif kind < 0.12:
            words.append(str(chance.randint(2, 99_999)))
        else:
            words.append(common[min(int(chance.expovariate(1 / 45)), len(common) - 1)])
    return " ".join(words)[:BOOK_BYTES]


def text(whose: str, number: int, size: int = SAID) -> str:
    """The passage of `size` bytes that is somebody's so-manieth; passages of one size do not overlap."""
    book = _book()
    start = (crc32(whose.encode()) + number * size) % (BOOK_BYTES - size)
    return book[start : start + size]
