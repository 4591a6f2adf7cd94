"""How a saver is opened and closed: as a context manager of either kind, or by hand."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from types import TracebackType
from typing import Self


class Closable:
    """Closed by `with`, `async with`, `close()` or `aclose()`; it opens by itself at its first use."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The storage as a URL, without any password."""

    @abstractmethod
    def close(self) -> None:
        """Finishes what was begun, then closes all connections. Closing twice is fine."""

    async def aclose(self) -> None:
        """As `close`."""
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
