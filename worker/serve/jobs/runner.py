"""The runner: asks for the parts of all jobs in turn, a part a slot, beside the callers who wait.

Its slots are its own, so single callers never wait for one. It may be killed at any moment, and any number of
them may run: see ``worker.storage.job_work``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from worker import logs
from worker.errors import StorageUnavailable
from worker.portability.requests import CheckRequest, Lane
from worker.serve.direct_lane import DirectLane
from worker.storage import engine, job_work
from worker.storage.job_work import Work

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from worker.pipeline import Pipeline
    from worker.storage.postgres_store import PostgresStore

log = logs.get(__name__)

T = TypeVar("T")

_PART_SECONDS = 60.0
"""After so long what is unanswered of a part is asked for again."""
_MARGIN_SECONDS = 30.0
"""A hold stands so long past that: a runner that lives settles before."""
_LOOK_SECONDS = 1.0
_TROUBLE_SECONDS = 2.0
_MARK_SECONDS = 5.0
"""At the end, for batches that told their answers and have only their mark to set."""


class JobRunner:
    """Works on jobs in a thread of its own, from :meth:`start` to :meth:`close`."""

    def __init__(
        self,
        pipeline: Pipeline,
        store: PostgresStore,
        database: Engine,
        *,
        slots: int,
        max_age_seconds: float | None,
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._database = database
        self._slots = slots
        self._max_age_seconds = max_age_seconds
        self._closing = Event()
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Thread(target=lambda: asyncio.run(self._run()), name="jobs", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def look(self) -> None:
        """There is something new to do: look now. From any thread."""
        if self._loop is not None and self._wake is not None:
            self._loop.call_soon_threadsafe(self._wake.set)

    def close(self, *, timeout_seconds: float) -> None:
        """Take nothing more, and wait for what is being asked."""
        self._closing.set()
        self.look()
        self._thread.join(timeout_seconds)

    async def _run(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        notes = self._store.suspicions
        lane = DirectLane(self._pipeline, notes, slots=self._slots, linger_seconds=0.0)
        try:
            await asyncio.gather(*(self._work(lane) for _ in range(self._slots)))
        finally:
            await asyncio.to_thread(lane.close, timeout_seconds=_MARK_SECONDS)

    async def _work(self, lane: DirectLane) -> None:
        while not self._closing.is_set():
            try:
                work = await asyncio.to_thread(self._take)
                if work is None:
                    await self._pause(_LOOK_SECONDS)
                else:
                    await self._ask(lane, work)
            except StorageUnavailable as exc:
                log.warning("job_waits_for_storage", error=str(exc))
                await self._pause(_TROUBLE_SECONDS)
            except Exception:  # the part stays as it is, for the next look
                log.exception("job_part_failed")
                await self._pause(_TROUBLE_SECONDS)

    async def _ask(self, lane: DirectLane, work: Work) -> None:
        try:
            places = list(work.mobiles)
            rows = await lane.ask(self._requests(work), seconds=_PART_SECONDS) if places else ()
            answers = dict(zip(places, rows, strict=True))
            if not await self._until_done(lambda to: job_work.store(to, work, answers)):
                log.warning("job_part_was_done_by_another", job=work.job_id, place=work.place)
        except Exception:
            await self._until_done(lambda to: job_work.let_go(to, work))
            raise

    async def _until_done(self, what: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(
            engine.transact_until_done, self._database, what, giving_up=self._closing
        )

    def _take(self) -> Work | None:
        if not engine.read(self._database, job_work.is_open):
            return None
        owner = self._store.owner()
        hold_seconds = _PART_SECONDS + _MARGIN_SECONDS
        return engine.transact(
            self._database, lambda to: job_work.take(to, owner=owner, hold_seconds=hold_seconds)
        )

    def _requests(self, work: Work) -> list[CheckRequest]:
        received_at = datetime.now(UTC)
        return [
            CheckRequest(
                lane=Lane.DIRECT,
                source=work.account_id,
                reference=f"{work.request_id}:{place}",
                msisdn=mobile,
                received_at=received_at,
                expires_at=received_at + timedelta(seconds=_PART_SECONDS),
                max_age_seconds=self._max_age_seconds,
            )
            for place, mobile in work.mobiles.items()
        ]

    async def _pause(self, seconds: float) -> None:
        assert self._wake is not None
        self._wake.clear()
        if not self._closing.is_set():
            try:
                await asyncio.wait_for(self._wake.wait(), seconds)
            except TimeoutError:
                return
