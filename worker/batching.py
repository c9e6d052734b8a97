"""Batching: a lane gathers requests; a free slot takes all that waits, at most 1000 distinct numbers.

No threads, no Celery, no clock of its own: :mod:`worker.lane` drives it under a lock, the consumer and
the front door feed it through a lane. Natural gathering: while every slot is busy requests pile up, so
batches grow with the load and a lone request is never made to wait for company (unless the lane lingers).

Suspects (:mod:`worker.suspicion`) wait apart: a batch of them holds only those against whom equally much
is held, the least first, and while it runs no other starts. In between the others have their turn.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from worker.carrier.protocol import MAX_BATCH
from worker.portability.records import CheckedRequest
from worker.portability.requests import CheckRequest, RequestKey
from worker.suspicion import Suspicion, cap

WAITERS_A_BATCH = 4 * MAX_BATCH
"""Requests one batch may carry: many may wait for one number, but a transaction must stay short."""

_SPREAD = 0.9
"""Full batches of a lane that lingers start as far apart as this share of what keeps every slot taken."""
_FULL_CALL_SECONDS = 1.5
"""For how long a full batch has its slot, until one has been seen: the provider's document."""

_FEW_DEADLINES = 4 * MAX_BATCH
_SUSPECT_AFTER = 2
"""Failed calls after which a number waits behind the others: one that is never answered is no probe."""


def batches_at_once(slots: int) -> int:
    """How many batches a lane runs: in a call in each slot, and half as many that store and tell answers.

    So the next call need not wait for that, while a process that dies owes no more than these.
    """
    return slots + slots // 2


class Waiter(msgspec.Struct, eq=False, weakref=True):
    """A request waiting in a lane, and what has happened to it so far."""

    request: CheckRequest
    # whatever the feeder needs to settle it with; the lane hands it back untouched
    token: Any = None
    # monotonic seconds past which the request is decided without an answer; None: never
    deadline: float | None = None
    # monotonic seconds of its arrival in the lane
    arrived_at: float = 0.0
    # sent_at of another request's call for the number, whose answer this request shares
    shares_from: datetime | None = None
    # monotonic seconds since when it waits for another request's call
    sharing_since: float | None = None
    # look-ups that were, or may have been, bought for this request
    bought: int = 0
    # provider calls that failed while it waited
    failures: int = 0
    # set where its process died, or its batch failed, once too often
    suspicion: Suspicion | None = None
    # the batcher's generation when it arrived
    generation: int = 0
    # decided, by whichever batch came first, or taken back
    settled: bool = False
    # of the dead letter it may have become when its message came before; None: this is the first time
    letter_id: int | None = None
    # taken out because its deadline passed
    overdue: bool = False
    # its message's span, where traces are on
    trace: Any = None
    _key: RequestKey | None = None

    @property
    def came_before(self) -> bool:
        """Whether a batch had it already, so far as this process knows."""
        held_off = self.suspicion is not None or self.sharing_since is not None
        return held_off or bool(self.bought or self.failures)

    @property
    def key(self) -> RequestKey:
        """The request's key, made once."""
        if self._key is None:
            self._key = self.request.key
        return self._key


class Postponed(msgspec.Struct, frozen=True, gc=False):
    """A request that has to wait again, and for how long."""

    waiter: Waiter
    seconds: float


@dataclass(slots=True)
class BatchOutcome:
    """What became of a batch's requests: each is in exactly one of the four lists."""

    decided: list[tuple[Waiter, CheckedRequest]] = field(default_factory=list)
    # parked as dead letters, with the reason
    rejected: list[tuple[Waiter, str]] = field(default_factory=list)
    postponed: list[Postponed] = field(default_factory=list)
    # to be run again at once, in the same slot: the others did not have to wait for their call
    still_asking: list[Waiter] = field(default_factory=list)
    # seconds for which the whole lane must not call: the gate is closed, or the provider fails
    pause_seconds: float = 0.0

    def with_waits_of(self, later: BatchOutcome) -> BatchOutcome:
        """Who has to wait again after this outcome and a later one of the same batch."""
        return BatchOutcome(
            postponed=[*self.postponed, *later.postponed],
            pause_seconds=max(self.pause_seconds, later.pause_seconds),
        )


@dataclass(slots=True)
class Batcher:
    """One lane's waiting requests, its busy slots, and when the next batch may start."""

    slots: int
    linger_seconds: float
    # monotonic seconds
    clock: Callable[[], float]
    cap: int = MAX_BATCH
    # added to the linger for each busy slot: the busier, the fuller the next batch
    linger_seconds_a_busy_slot: float = 0.0
    # while true no batch starts
    stopped: bool = field(default=False, init=False)
    busy: int = field(default=0, init=False)
    # batches that have given their slot back and have not ended
    ending: int = field(default=0, init=False)
    # seconds between the starts of full batches, and when the last one started
    _apart: float = field(default=0.0, init=False)
    _started_at: float = field(default=-math.inf, init=False)
    _generation: int = field(default=0, init=False)
    _groups: OrderedDict[Any, list[Waiter]] = field(default_factory=OrderedDict, init=False)
    # by what is held against them
    _suspects: dict[int, deque[Waiter]] = field(default_factory=dict, init=False)
    # identities of the suspects that run now
    _alone: set[int] = field(default_factory=set, init=False)
    # batches of others that may start before the next of suspects; no matter while there are none
    _others_first: int = field(default=0, init=False)
    _postponed: list[tuple[float, int, Waiter]] = field(default_factory=list, init=False)
    _deadlines: list[tuple[float, int, Waiter]] = field(default_factory=list, init=False)
    _deadlines_at_most: int = field(default=_FEW_DEADLINES, init=False)
    _paused_until: float = field(default=0.0, init=False)
    _sequence: Any = field(default_factory=itertools.count, init=False)

    def __post_init__(self) -> None:
        self._taken_for(_FULL_CALL_SECONDS)

    def add(self, waiters: Iterable[Waiter]) -> None:
        """Let requests wait for the next batch."""
        now = self.clock()
        for waiter in waiters:
            waiter.arrived_at, waiter.generation = now, self._generation
            if waiter.deadline is not None:
                heapq.heappush(self._deadlines, (waiter.deadline, next(self._sequence), waiter))
            self._wait(waiter)
        self._forget_settled()

    def postpone(self, waiters: Iterable[Waiter], seconds: float) -> None:
        """Let requests wait again, but not before ``seconds`` from now; forgotten ones are not taken back."""
        ready_at = self.clock() + seconds
        for waiter in waiters:
            if waiter.generation == self._generation and not waiter.settled:
                heap = self._deadlines if waiter.overdue else self._postponed
                heapq.heappush(heap, (ready_at, next(self._sequence), waiter))

    def next_batch(self) -> list[Waiter] | None:
        """Take a slot and the requests that have waited longest, if a batch is due now."""
        now = self.clock()
        self._return_postponed(now)
        due_at = self.due_at()
        if due_at is None or due_at > now:
            return None
        others_due_at = self._others_due_at()
        if others_due_at is not None and others_due_at <= now:
            batch = self._take()
            self._started_at = now
            self._others_first -= 1
        else:
            batch = self._take_suspects()
            self._alone = set(map(id, batch))
        if batch:
            self.busy += 1
        return batch or None

    def overdue(self) -> list[Waiter]:
        """Take out the undecided requests whose deadline has passed, waiting or in a call; needs no slot.

        Suspects that wait are left to their own batches, which find them expired.
        """
        now = self.clock()
        taken = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, waiter = heapq.heappop(self._deadlines)
            if waiter.settled:
                continue
            if waiter.suspicion is None or id(waiter) in self._alone:
                waiter.overdue = True
                taken.append(waiter)
            elif waiter.overdue:  # it became a suspect while it was out
                waiter.overdue = False
                self._wait(waiter)
        return taken

    def asked(self, *, seconds: float) -> None:
        """Give back the slot of a batch that makes no further call; it had it so long."""
        self.busy -= 1
        self.ending += 1
        self._taken_for(seconds)

    def done(self) -> None:
        """Take note of a batch's end; its slot was given back."""
        self.ending -= 1
        if self._alone:
            self._alone = set()
            self._others_first = self.slots

    def pause(self, seconds: float) -> None:
        """Start no batch for so long."""
        self._paused_until = max(self._paused_until, self.clock() + seconds)

    def wake_at(self) -> float | None:
        """Return when to look again if nothing else happens, in monotonic seconds; None: never."""
        moments = [moment for moment in (self.due_at(),) if moment is not None]
        moments += [heap[0][0] for heap in (self._postponed, self._deadlines) if heap]
        return min(moments, default=None)

    def forget(self) -> None:
        """Drop every request, those in a call once it ends: their messages went back to the broker."""
        self._generation += 1
        self._groups.clear()
        self._suspects.clear()
        self._postponed.clear()
        self._deadlines.clear()

    def take_back(self, *, arrived_before: float = math.inf) -> list[Waiter]:
        """Take out for good what has waited since before then; what is in a call stays."""
        waiting = [*itertools.chain(*self._groups.values(), *self._suspects.values())]
        waiting += [waiter for _, _, waiter in self._postponed]
        taken = {waiter for waiter in waiting if waiter.arrived_at < arrived_before}
        if taken:
            groups = [
                (key, [one for one in group if one not in taken]) for key, group in self._groups.items()
            ]
            self._groups = OrderedDict((key, group) for key, group in groups if group)
            self._suspects = {
                level: deque(left)
                for level, ones in self._suspects.items()
                if (left := [one for one in ones if one not in taken])
            }
            self._postponed = [entry for entry in self._postponed if entry[2] not in taken]
            heapq.heapify(self._postponed)
            for waiter in taken:
                waiter.settled = True
        return list(taken)

    @property
    def running(self) -> int:
        """Batches that have not ended, in a slot or with theirs given back."""
        return self.busy + self.ending

    @property
    def waiting(self) -> int:
        """Requests that wait, postponed ones included."""
        waiting = (*self._groups.values(), *self._suspects.values())
        return sum(map(len, waiting)) + len(self._postponed)

    def _taken_for(self, seconds: float) -> None:
        """Let full batches start apart, but not so far that a slot stands empty, nor beyond the linger.

        Calls that start together end together, and what they bring is worked off all at once: meanwhile there
        is no core for a shopper, and soon no call in any slot.
        """
        self._apart = min(self.linger_seconds, _SPREAD * seconds / self.slots)

    def _forget_settled(self) -> None:
        """Let go of decided requests whose deadline is still far: a heap gives nothing up by itself."""
        if len(self._deadlines) > self._deadlines_at_most:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].settled]
            heapq.heapify(self._deadlines)
            self._deadlines_at_most = max(_FEW_DEADLINES, 2 * len(self._deadlines))

    def _wait(self, waiter: Waiter) -> None:
        if waiter.suspicion is not None:
            self._suspects.setdefault(waiter.suspicion.level, deque()).append(waiter)
            return
        # A request without a number is decided by rule: it takes no place of another's.
        key = waiter.request.msisdn or id(waiter)
        group = self._groups.get(key)
        if group is None:
            self._groups[key] = [waiter]
        else:
            group.append(waiter)

    def _return_postponed(self, now: float) -> None:
        while self._postponed and self._postponed[0][0] <= now:
            _, _, waiter = heapq.heappop(self._postponed)
            if not waiter.overdue and not waiter.settled:
                self._wait(waiter)
                if waiter.suspicion is not None:
                    continue
                last = waiter.failures >= _SUSPECT_AFTER
                self._groups.move_to_end(waiter.request.msisdn or id(waiter), last=last)

    def due_at(self) -> float | None:
        """When the next batch may start, in monotonic seconds; None: nothing waits, or there is no slot."""
        if self._alone or self.stopped:
            return None
        if self._suspects and not self.running:
            return self._paused_until
        return self._others_due_at()

    def _others_due_at(self) -> float | None:
        if not self._groups or self.busy >= self.slots or (self._suspects and self._others_first <= 0):
            return None
        oldest = next(iter(self._groups.values()))[0].arrived_at
        full = len(self._groups) >= self.cap
        linger = self.linger_seconds + self.busy * self.linger_seconds_a_busy_slot
        apart = self._started_at + self._apart if self.busy else 0.0
        return max(self._paused_until, apart if full else oldest + linger)

    def _take(self) -> list[Waiter]:
        cap = self.cap
        batch: list[Waiter] = []
        while cap and self._groups and len(batch) < WAITERS_A_BATCH:
            _, group = self._groups.popitem(last=False)
            live = [waiter for waiter in group if not waiter.overdue and not waiter.settled]
            batch += live
            cap -= bool(live)
        return batch

    def _take_suspects(self) -> list[Waiter]:
        batch: dict[int, Waiter] = {}
        while self._suspects and not batch:
            level = min(self._suspects)
            waiting = self._suspects[level]
            while waiting and len(batch) < min(self.cap, cap(level)):
                waiter = waiting.popleft()
                if not waiter.overdue and not waiter.settled:
                    batch[id(waiter)] = waiter
            if not waiting:
                del self._suspects[level]
        return list(batch.values())


class Slot:
    """The slot that a batch has taken, or none; used like the batcher, under the lane's lock."""

    def __init__(self, batcher: Batcher | None) -> None:
        self._batcher = batcher
        self._taken_at = 0.0 if batcher is None else batcher.clock()
        self._given_back = False

    @property
    def taken(self) -> bool:
        """Whether the batch took one, given back or not."""
        return self._batcher is not None

    def give_back(self) -> bool:
        """Give it back before the batch has ended; return whether there was one to give."""
        if self._batcher is None or self._given_back:
            return False
        self._given_back = True
        self._batcher.asked(seconds=self._batcher.clock() - self._taken_at)
        return True

    def end(self) -> None:
        """Take note of the batch's end, which gives the slot back where that was not done before."""
        if self._batcher is not None:
            self.give_back()
            self._batcher.done()
