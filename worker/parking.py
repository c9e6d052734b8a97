"""Parking: a thread of its own stores dead letters, so that the consumer's never waits for Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from worker import logs
from worker.errors import StorageUnavailable
from worker.storage.dead_letters import DeadLetter

log = logs.get(__name__)


class Parking:
    """Does, one after the other, what the consumer's thread has for Postgres."""

    def __init__(self, park: Callable[[Sequence[DeadLetter]], None]) -> None:
        self._park = park
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parking")

    def park(self, letters: Sequence[DeadLetter], then: Callable[[], None]) -> None:
        """Park letters, then call ``then``; on a shutdown without Postgres the broker keeps them."""
        self.do(lambda: self._parked(letters, then))

    def do(self, work: Callable[[], None]) -> None:
        """Call ``work`` after what was asked for before."""
        self._thread.submit(work).add_done_callback(_report_defect)

    def close(self) -> None:
        """Wait for what is being done, and do nothing more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _parked(self, letters: Sequence[DeadLetter], then: Callable[[], None]) -> None:
        try:
            self._park(letters)
        except StorageUnavailable as exc:
            log.warning("not_parked", letters=len(letters), error=str(exc))
            return
        for letter in letters:
            log.info("dead_letter_parked", letter=letter.id, task=letter.task, reason=letter.reason)
        then()


def _report_defect(done: Future[None]) -> None:
    """Say why a message could not even be parked; it stays unacknowledged, so the broker keeps it."""
    if not done.cancelled() and done.exception() is not None:
        log.error("parking_failed", exc_info=done.exception())
