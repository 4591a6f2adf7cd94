"""Questions of many callers at once: asked together by one worker, answered by one call into each event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST = 256
"""Questions that are asked together."""


class AskAloneError(Exception):
    """The questions could not be answered together; each may still be answered for itself."""


class Gathering(Generic[K, V]):
    """While some questions are asked, the next ones gather.

    Args:
        ask: Answers some questions, in one go; what is missing from its answer is answered by None. It is called on a
            worker thread, by one at a time.
        workers: Where it is called.
    """

    def __init__(self, ask: Callable[[Sequence[K]], Mapping[K, V]], workers: Executor) -> None:
        self._ask, self._workers = ask, workers
        self._lock = Lock()
        self._waiting: deque[tuple[K, asyncio.Future[V | None]]] = deque()
        self._busy = False

    async def answer(self, question: K) -> V | None:
        """The answer to one question.

        Raises:
            AskAloneError: If none of those that were asked together was answered.
            RuntimeError: If the workers take no more.
        """
        answer: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if not self._busy:
                self._workers.submit(self._work_off)
                self._busy = True
            self._waiting.append((question, answer))
        return await answer

    def _work_off(self) -> None:
        while group := self._taken():
            answers: Mapping[K, V] | None
            try:
                answers = self._ask(list(dict.fromkeys(question for question, _ in group)))
            except Exception:  # of one of them, or of all: asked alone, each is told what is wrong
                answers = None
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[K, asyncio.Future[V | None]]]] = {}
            for question, answer in group:
                by_loop.setdefault(answer.get_loop(), []).append((question, answer))
            for loop, asked in by_loop.items():
                with suppress(RuntimeError):  # a closed loop takes no call; whoever waited went with it
                    loop.call_soon_threadsafe(_tell, asked, answers)

    def _taken(self) -> list[tuple[K, asyncio.Future[V | None]]]:
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
            self._busy = bool(group)
            return group


def _tell(asked: Sequence[tuple[K, asyncio.Future[V | None]]], answers: Mapping[K, V] | None) -> None:
    for question, answer in asked:
        if answer.done():  # a cancelled one is
            continue
        if answers is None:
            answer.set_exception(AskAloneError())
        else:
            answer.set_result(answers.get(question))
