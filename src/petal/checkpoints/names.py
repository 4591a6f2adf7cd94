"""Names that nothing else has, in any process."""

from __future__ import annotations

import os
import random
from base64 import urlsafe_b64encode

# Not the module's own generator, which programs seed; and not os.urandom, which gives Python's lock away each time:
# with many threads at once, waiting for it again took a twentieth of a turn.
_chance = random.Random()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_chance.seed)


def hexadecimal(digits: int) -> str:
    """So many hexadecimal digits of chance."""
    return f"{_chance.getrandbits(4 * digits):0{digits}x}"


def row_name() -> str:
    """11 letters and digits, - and _: 64 bits of chance, for the name of a row."""
    return urlsafe_b64encode(_chance.randbytes(8))[:11].decode()
