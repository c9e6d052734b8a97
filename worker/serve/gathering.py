"""Gathering: while one piece of work runs in a thread, what comes waits, and is the next piece together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

_AT_ONCE = 500


class Gathering(Generic[Q, A]):
    """``work`` is given many questions and returns an answer for each, or raises for them all.

    Belongs to one event loop; one piece of work runs at a time.
    """

    def __init__(self, work: Callable[[Sequence[Q]], Sequence[A]], pool: Executor) -> None:
        self._work = work
        self._pool = pool
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._running: asyncio.Task[None] | None = None

    def ask(self, question: Q) -> asyncio.Future[A]:
        """Return the future of a question's answer; nobody need wait for it."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_take_note)
        self._waiting.append((question, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return future

    async def drain(self) -> None:
        """Wait until nothing waits or runs any more."""
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            try:
                answers = await loop.run_in_executor(self._pool, self._work, [each for each, _ in taken])
            except Exception as exc:  # noqa: BLE001 - whoever waits is told
                for _, future in taken:
                    if not future.done():
                        future.set_exception(exc)
            else:
                for (_, future), answer in zip(taken, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)


def _take_note(future: asyncio.Future[A]) -> None:
    """Nobody may wait for it any more: then its failure is no news."""
    if not future.cancelled():
        future.exception()
