"""Many models at once: read, compared with how they looked when they were encoded, and made again.

A long chat has a thousand messages of which a turn adds two. Here is what is done to each of the thousand, in C where a
compiler was at hand when Petal was installed (`c/`), which takes a third to a fifth of the time. Without it, or with
`PETAL_PURE_PYTHON` set in the environment, `many_models_in_python` does the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from petal.checkpoints.codec.many_models_in_python import Recipe

if TYPE_CHECKING or os.environ.get("PETAL_PURE_PYTHON"):
    from petal.checkpoints.codec.many_models_in_python import Look, again, look, read, unchanged
else:
    try:
        from petal.checkpoints.codec._many_models import Look, again, look, read, unchanged
    except ImportError:
        from petal.checkpoints.codec.many_models_in_python import Look, again, look, read, unchanged

__all__ = ["IN_C", "WEIGHT", "Look", "Recipe", "again", "look", "read", "unchanged"]

IN_C = Look.__module__.endswith("._many_models")
WEIGHT = 170 if IN_C else 750
"""Bytes that a look takes in memory beside what the model holds, roughly."""
