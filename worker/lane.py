"""A lane: the threads that drive one :class:`~worker.batching.Batcher`.

One dispatcher thread starts batches on a pool; its timers are its own, so nothing that happens to the
broker connection (Celery clears its event loop's timers at a reconnect) can stop a batch from leaving.
Knows no Celery: the consumer feeds a lane from the queue, the front door feeds one from HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from worker import logs
from worker.batching import Batcher, BatchOutcome, Postponed, Slot, Waiter, batches_at_once
from worker.errors import StorageUnavailable
from worker.metrics import batches, lanes
from worker.portability.requests import Lane
from worker.suspects import Suspects
from worker.suspicion import Suspicion

log = logs.get(__name__)


class RunBatch(Protocol):
    """What decides a batch; it calls ``asked`` once no further provider call is made for it."""

    def __call__(self, waiters: Sequence[Waiter], /, *, asked: Callable[[], None]) -> BatchOutcome:
        """Decide a batch."""
        ...


Settle = Callable[[BatchOutcome], None]
Started = Callable[[Sequence[Waiter]], None]

_STORAGE_PAUSE_SECONDS = 1.0
_DEFECT_PAUSE_SECONDS = 1.0
"""Also how long the lane stands still: a defect that meets everything must not park everything at once."""


class LaneRunner:
    """Runs a lane's batches, each on a thread of its own, and reports every outcome.

    ``started`` and ``settle`` are called on the batch's thread; they must be thread-safe.
    """

    def __init__(
        self,
        lane: Lane,
        *,
        slots: int,
        linger_seconds: float,
        run_batch: RunBatch,
        settle: Settle,
        suspects: Suspects,
        started: Started = lambda _waiters: None,
        linger_seconds_a_busy_slot: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lane = lane
        self._run_batch = run_batch
        self._settle = settle
        self._suspects = suspects
        self._started = started
        self._batcher = Batcher(
            slots=slots,
            linger_seconds=linger_seconds,
            clock=clock,
            linger_seconds_a_busy_slot=linger_seconds_a_busy_slot,
        )
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False
        # when the dispatcher looks again by itself
        self._wakes_at: float | None = None
        # two more decide what is overdue while all the others are busy
        threads = batches_at_once(slots) + 2
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=f"{lane}-batch")
        # All of them now: the pool would start the last ones when it is first short of them, hours later.
        together = threading.Barrier(threads)
        for _ in range(threads):
            self._pool.submit(together.wait)
        self._dispatcher = threading.Thread(target=self._dispatch, name=f"{lane}-dispatch", daemon=True)
        self._dispatcher.start()
        lanes.show(lane, self.snapshot)

    def submit(self, waiters: Iterable[Waiter]) -> None:
        """Let requests wait for the next batch; where the lane is idle and does not linger, they are it."""
        with self._changed:
            self._batcher.add(waiters)
            batch = None if self._batcher.busy or self._closed else self._batcher.next_batch()
            if batch is not None:  # past the dispatcher, whose waking a shopper would wait for
                self._start(batch)
            wake_at = self._batcher.wake_at()
            sleeps_longer = self._wakes_at is None or (wake_at is not None and wake_at < self._wakes_at)
            if wake_at is not None and sleeps_longer:  # woken for each, it costs as much as a message
                self._changed.notify()

    def forget(self) -> None:
        """Drop what waits; what is in a call goes on to its commit."""
        with self._changed:
            self._batcher.forget()

    def stop(self) -> list[Waiter]:
        """Start no further batch until :meth:`go_on`; return what waited, which the lane gives up."""
        with self._changed:
            self._batcher.stopped = True
            return self._batcher.take_back()

    def go_on(self) -> None:
        """Start batches again."""
        with self._changed:
            self._batcher.stopped = False
            self._changed.notify()

    def take_back(self, *, waiting_seconds: float) -> list[Waiter]:
        """Give up what has waited for so long; return it."""
        with self._changed:
            return self._batcher.take_back(arrived_before=self._clock() - waiting_seconds)

    def start_nothing_more(self) -> None:
        """Start no further batch. Takes no lock: safe in a signal handler."""
        self._closed = True

    def close(self, *, timeout_seconds: float) -> bool:
        """Start nothing more and wait for the running batches; return whether all ended in time."""
        deadline = self._clock() + timeout_seconds
        lanes.hide(self.lane, self.snapshot)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._batcher.running and self._clock() < deadline:
                self._changed.wait(max(0.0, deadline - self._clock()))
            ended = not self._batcher.running
        self._pool.shutdown(wait=False, cancel_futures=True)
        return ended

    def snapshot(self) -> dict[str, int]:
        """What ``celery inspect lanes`` and Prometheus show of this lane."""
        with self._changed:
            return {
                "waiting": self._batcher.waiting,
                "slots": self._batcher.slots,
                "busy": self._batcher.busy,
            }

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                overdue, batch = self._batcher.overdue(), self._batcher.next_batch()
                if overdue:
                    self._pool.submit(self._run, overdue, Slot(None))
                if batch is not None:
                    self._start(batch)
                if not overdue and batch is None:
                    self._changed.wait(self._seconds_to_sleep())

    def _start(self, batch: list[Waiter]) -> None:
        """Run a batch that has taken a slot; called under the lock."""
        self._pool.submit(self._run, batch, Slot(self._batcher))

    def _seconds_to_sleep(self) -> float | None:
        wake_at = self._wakes_at = self._batcher.wake_at()
        return None if wake_at is None else max(0.0, wake_at - self._clock())

    def _run(self, batch: list[Waiter], slot: Slot) -> None:
        outcome = BatchOutcome()
        try:
            # the overdue are suspects only where they run in a batch that runs apart already
            with self._suspects.run_apart(batch if slot.taken else ()) as may_run:
                outcome = self._run_until_told(batch, slot) if may_run else _all_postponed(batch, 0.0)
        except StorageUnavailable as exc:
            log.warning("batch_postponed", lane=self.lane, requests=len(batch), error=str(exc))
            batches.postponed(self.lane, batches.STORAGE)
            outcome = _all_postponed(batch, _STORAGE_PAUSE_SECONDS)
        except Exception:
            log.exception("batch_not_run", lane=self.lane, requests=len(batch))
            batches.postponed(self.lane, batches.DEFECT)
            outcome = _all_postponed(batch, _DEFECT_PAUSE_SECONDS)
        finally:
            self._return(outcome, slot)

    def _run_until_told(self, batch: Sequence[Waiter], slot: Slot) -> BatchOutcome:
        """Run a batch, and what it left asking; what ends it too early waits again with the postponed."""
        waits, left = BatchOutcome(), batch
        apart = any(waiter.suspicion is not None for waiter in batch)  # then no other starts before its end
        asked = _keep if apart else partial(self._give_back, slot)
        try:
            self._started(batch)
            while left and not self._closed:
                began = time.monotonic()
                outcome = self._first_words(self._run_batch(left, asked=asked))
                self._settle(outcome)
                self._write_down(len(left), outcome, seconds=time.monotonic() - began)
                waits = waits.with_waits_of(outcome)
                left = outcome.still_asking
        except StorageUnavailable as exc:
            log.warning("batch_postponed", lane=self.lane, requests=len(left), error=str(exc))
            batches.postponed(self.lane, batches.STORAGE)
            return waits.with_waits_of(_all_postponed(left, _STORAGE_PAUSE_SECONDS))
        except Exception as exc:
            log.exception("batch_failed", lane=self.lane, requests=len(left))
            batches.postponed(self.lane, batches.DEFECT)
            return waits.with_waits_of(self._suspected(left, exc))
        return waits

    def _write_down(self, requests: int, outcome: BatchOutcome, *, seconds: float) -> None:
        """One line a batch; one that only waits again says nothing."""
        if outcome.decided:
            rows = [row for _, row in outcome.decided]
            log.info(
                "batch_decided",
                lane=self.lane,
                batch_id=rows[0].batch_id,
                requests=requests,
                decided=len(rows),
                bought=sum(row.call_id is not None for row in rows),
                rejected=len(outcome.rejected),
                postponed=len(outcome.postponed),
                seconds=round(seconds, 3),
            )

    def _suspected(self, batch: Sequence[Waiter], defect: Exception) -> BatchOutcome:
        """Let a failed batch's requests wait as suspects; give up the one that failed alone twice."""
        outcome = BatchOutcome(pause_seconds=_DEFECT_PAUSE_SECONDS)
        for waiter in batch:
            waiter.suspicion = (waiter.suspicion or Suspicion()).failed(defect)
            if waiter.suspicion.guilty:
                outcome.rejected.append((waiter, waiter.suspicion.reason()))
            else:
                outcome.postponed.append(Postponed(waiter, _DEFECT_PAUSE_SECONDS))
        try:
            self._settle(self._first_words(outcome))
        except Exception:  # its message stays with the broker
            log.exception("not_parked", lane=self.lane, letters=len(outcome.rejected))
        return outcome

    def _first_words(self, outcome: BatchOutcome) -> BatchOutcome:
        """Keep what this batch is the first to settle; an overdue twin may have been quicker."""
        with self._changed:
            outcome.decided = [(waiter, row) for waiter, row in outcome.decided if _is_first(waiter)]
            outcome.rejected = [(waiter, why) for waiter, why in outcome.rejected if _is_first(waiter)]
        return outcome

    def _give_back(self, slot: Slot) -> None:
        with self._changed:
            slot.give_back()
            if self._batcher.due_at() is not None:  # else it would only take turns with this thread
                self._changed.notify_all()

    def _return(self, outcome: BatchOutcome, slot: Slot) -> None:
        with self._changed:
            slot.end()
            together: defaultdict[float, list[Waiter]] = defaultdict(list)
            for postponed in outcome.postponed:
                together[postponed.seconds].append(postponed.waiter)
            for seconds, waiters in together.items():  # at one moment, or their next call would be several
                self._batcher.postpone(waiters, seconds)
            if outcome.pause_seconds:
                self._batcher.pause(outcome.pause_seconds)
            self._changed.notify_all()


def _keep() -> None:
    """Gives no slot back."""


def _is_first(waiter: Waiter) -> bool:
    """Settle a request, unless it is settled; a batch may hold one twice, overdue and asked again."""
    first = not waiter.settled
    waiter.settled = True
    return first


def _all_postponed(batch: Sequence[Waiter], seconds: float) -> BatchOutcome:
    return BatchOutcome(postponed=[Postponed(waiter, seconds) for waiter in batch], pause_seconds=seconds)
