"""LangGraph's way to ask for checkpoints, as queries for one page after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from langchain_core.runnables import RunnableConfig

from petal.checkpoints.records import CheckpointQuery, CheckpointRow
from petal.checkpoints.rows import NO_STEP, Namespace, Rows, checkpoint_id_of

_PAGE = 50
_SCALARS = (str, int, float, bool)


@dataclass(slots=True)
class Search:
    """Which checkpoints are wanted, and how far the pages have come.

    Attributes:
        query: For the next page.
        filter: What the metadata must hold. What has a column or a label is looked up; each row is compared
            all the same, since two values may share a label.
        left: How many are wanted still; None for all.
    """

    query: CheckpointQuery
    filter: Mapping[str, Any] = field(default_factory=dict)
    left: int | None = None
    last: CheckpointRow | None = None
    read: int = 0

    @classmethod
    def of(
        cls,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
        rows: Rows,
    ) -> Self:
        """The search that LangGraph's arguments of `list` stand for."""
        filter = filter or {}
        step = filter.get("step")
        query = CheckpointQuery(
            before=None if before is None else checkpoint_id_of(before),
            source=_text(filter.get("source")),
            step=step if type(step) is int and abs(step) < NO_STEP else None,
            run_id=_text(filter.get("run_id")),
            labels=tuple(
                rows.searched(key, value)
                for key, value in filter.items()
                if key not in ("source", "step", "run_id") and isinstance(value, _SCALARS)
            ),
            limit=_PAGE if limit is None or filter else min(limit, _PAGE),
        )
        if config is not None:
            place = Namespace.of(config)
            ns = place.ns if config["configurable"].get("checkpoint_ns") is not None else None
            query = replace(query, thread_id=place.thread_id, ns=ns, id=checkpoint_id_of(config))
        return cls(query, filter, limit)

    def matches(self, row: CheckpointRow, rows: Rows) -> bool:
        """Whether a row is wanted."""
        if self.left is not None and self.left <= 0:
            return False
        if self.filter:
            metadata = rows.metadata(row)
            if any(metadata.get(key) != value for key, value in self.filter.items()):
                return False
        if self.left is not None:
            self.left -= 1
        return True

    def passed(self, row: CheckpointRow) -> None:
        """Note that a row was read."""
        self.last = row
        self.read += 1

    def following(self) -> Search | None:
        """The search for the next page, if there may be one."""
        if self.last is None or self.read < self.query.limit or (self.left is not None and self.left <= 0):
            return None
        after = self.last.id, self.last.thread_id, self.last.ns
        return Search(replace(self.query, after=after), self.filter, self.left)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
