"""The steps that agent.yaml names. Each leaves a line in a journal, so that it can be seen how often it ran."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def journal(line: str) -> None:
    """Add a line to the file that JOURNAL names."""
    with Path(os.environ.get("JOURNAL", "journal.txt")).open("a") as file:
        file.write(f"{line}\n")


def look_up_order(state: Any) -> dict[str, Any]:
    """Quick, and better not done twice."""
    journal("look_up_order done")
    return {}


def ask_warehouse(state: Any) -> dict[str, Any]:
    """Takes a while."""
    journal("ask_warehouse begun")
    time.sleep(float(os.environ.get("WAREHOUSE_SECONDS", "1")))
    journal("ask_warehouse done")
    return {}
