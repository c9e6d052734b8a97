"""Parking: a thread of its own stores dead letters, so that the consumer's never waits for Postgres."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from worker import logs
from worker.errors import StorageUnavailable
from worker.portability.records import CheckedRequest
from worker.storage.dead_letters import DeadLetter

log = logs.get(__name__)

Decided = Mapping[str, CheckedRequest]


class Parking:
    """Does, one after the other, what the consumer's thread has for Postgres."""

    def __init__(self, park: Callable[[Sequence[DeadLetter]], Decided]) -> None:
        self._park = park
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parking")

    def park(self, letters: Sequence[DeadLetter], then: Callable[[Decided], None]) -> None:
        """Park letters, then call ``then``; on a shutdown without Postgres the broker keeps them.

        ``then`` is given the rows of requests that turned out to be decided, by their letters' ids: these
        are not parked.
        """
        self.do(lambda: self._parked(letters, then))

    def do(self, work: Callable[[], None]) -> None:
        """Call ``work`` after what was asked for before."""
        self._thread.submit(work).add_done_callback(_report_defect)

    def close(self) -> None:
        """Wait for what is being done, and do nothing more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _parked(self, letters: Sequence[DeadLetter], then: Callable[[Decided], None]) -> None:
        try:
            decided = self._park(letters)
        except StorageUnavailable as exc:
            log.warning("not_parked", letters=len(letters), error=str(exc))
            return
        for letter in letters:
            if letter.id not in decided:
                log.info("dead_letter_parked", letter=letter.id, task=letter.task, reason=letter.reason)
        then(decided)


def _report_defect(done: Future[None]) -> None:
    """Say why a message could not even be parked; it stays unacknowledged, so the broker keeps it."""
    if not done.cancelled() and done.exception() is not None:
        log.error("parking_failed", exc_info=done.exception())
