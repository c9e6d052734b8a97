"""Lane ``direct``: the numbers of callers who wait, gathered into provider calls.

The same batcher, runner and pipeline as the queue's lanes. A caller is a future of the event loop, not a
thread: the batches' threads fill in its rows and wake the loop once for all callers that are complete.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from typing import NamedTuple

from worker import logs
from worker.batching import BatchOutcome, Waiter
from worker.lane import LaneRunner
from worker.pipeline import Pipeline
from worker.portability.records import CheckedRequest
from worker.portability.requests import CheckRequest, Lane
from worker.suspects import Notes, Suspects

log = logs.get(__name__)

LINGER_SECONDS_A_BUSY_SLOT = 0.05
"""An idle lane asks at once. While calls are under way the next one waits for company: 500 callers within a
second become ten calls, not sixty."""

Rows = Sequence[CheckedRequest | None]


class _Call:
    """One caller: the rows of its numbers as they are decided, and who waits for them."""

    def __init__(self, numbers: int) -> None:
        self._lock = Lock()
        self._rows: list[CheckedRequest | None] = [None] * numbers
        self._open = set(range(numbers))
        self._future: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()

    def put(self, place: int, row: CheckedRequest | None) -> bool:
        """Fill in one row, or that there is none; return whether it was the last. The first word stands."""
        with self._lock:
            if place not in self._open:
                return False
            self._open.remove(place)
            self._rows[place] = row
            return not self._open

    def wake(self) -> None:
        """In the loop: hand over the rows."""
        if not self._future.done():
            self._future.set_result(self._rows)

    async def rows(self) -> Rows:
        return await self._future


class _Place(NamedTuple):
    """Where a request's row belongs."""

    call: _Call
    at: int


class DirectLane:
    """The lane, for one event loop."""

    def __init__(self, pipeline: Pipeline, notes: Notes, *, slots: int, linger_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()
        # numbers in a running batch, and when it started, UTC
        self._asking: dict[str | None, datetime] = {}
        self._runner = LaneRunner(
            Lane.DIRECT,
            slots=slots,
            linger_seconds=linger_seconds,
            linger_seconds_a_busy_slot=LINGER_SECONDS_A_BUSY_SLOT,
            run_batch=partial(pipeline.run_batch, told=self._settle),
            settle=self._settle,
            started=self._started,
            suspects=Suspects(notes),
        )

    async def ask(self, requests: Sequence[CheckRequest], *, seconds: float) -> Rows:
        """Decide requests, each within ``seconds``; None for one that is given up."""
        call, deadline = _Call(len(requests)), time.monotonic() + seconds
        waiters = [Waiter(each, _Place(call, at), deadline) for at, each in enumerate(requests)]
        # A number that is being asked now is shared, also if this waits until it is answered.
        with self._lock:
            for waiter in waiters:
                waiter.shares_from = self._asking.get(waiter.request.msisdn)
        self._runner.submit(waiters)
        return await call.rows()

    def close(self, *, timeout_seconds: float) -> None:
        """Start nothing more, and wait for the calls under way."""
        self._runner.close(timeout_seconds=timeout_seconds)

    def _started(self, waiters: Sequence[Waiter]) -> None:
        now = datetime.now(UTC)
        with self._lock:
            for waiter in waiters:
                self._asking.setdefault(waiter.request.msisdn, now)

    def _settle(self, outcome: BatchOutcome) -> None:
        """On a batch's thread, before its events and once more after them."""
        with self._lock:
            for waiter in (*(one for one, _ in outcome.decided), *(one for one, _ in outcome.rejected)):
                self._asking.pop(waiter.request.msisdn, None)
        complete = [
            place.call
            for waiter, row in outcome.decided
            for place in [waiter.token]
            if place.call.put(place.at, row)
        ]
        for waiter, why in outcome.rejected:
            log.warning("direct_request_given_up", request=waiter.request.reference, reason=why)
            if waiter.token.call.put(waiter.token.at, None):
                complete.append(waiter.token.call)
        if complete:
            self._loop.call_soon_threadsafe(_wake, complete)


def _wake(calls: Iterable[_Call]) -> None:
    for call in calls:
        call.wake()
