"""Who has threads and connections is told in a process that forked, which has neither."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forking(Protocol):
    """What must be made ready for a process that forked."""

    def forked(self) -> None:
        """Called in the new process, before anything else is done there."""
        ...


_told: WeakSet[Forking] = WeakSet()


def tell(one: Forking) -> None:
    """Tell it of each fork from now on, as long as it is there."""
    _told.add(one)


def _tell_all() -> None:
    for one in list(_told):
        one.forked()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_tell_all)
