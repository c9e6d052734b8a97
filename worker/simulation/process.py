"""A lane's workers: the queue they share, and in each the thread that receives and its batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

from worker.batching import Batcher, Slot, Waiter
from worker.sharing import POLL_SECONDS
from worker.simulation.agenda import Agenda
from worker.simulation.core import Core
from worker.simulation.outcome import LaneRecord
from worker.simulation.scenario import Costs, LanePlan
from worker.simulation.traffic import Message
from worker.simulation.way import Steps, Wait, Way, Work


@dataclass(slots=True)
class Queue:
    """A queue at the broker: messages go to the workers in turn, as far as each may hold one more."""

    # messages a worker may hold
    prefetch: int
    _workers: Sequence[WorkerProcess] = ()
    _turns: Iterator[WorkerProcess] = field(default_factory=lambda: iter(()))
    _messages: deque[Message] = field(default_factory=deque)

    def open(self, workers: Sequence[WorkerProcess]) -> None:
        """Let these workers consume."""
        self._workers, self._turns = workers, cycle(workers)

    def put(self, message: Message) -> None:
        """Keep a message until a worker has room for it, which may be at once."""
        self._messages.append(message)
        self.deliver()

    def deliver(self) -> None:
        """Hand out what there is room for."""
        refused = 0
        while self._messages and refused < len(self._workers):
            worker = next(self._turns)
            if worker.held < self.prefetch:
                refused = 0
                worker.take(self._messages.popleft())
            else:
                refused += 1


class WorkerProcess:
    """One process of a lane: receives, lets its items wait in a real batcher, and runs the batches."""

    def __init__(
        self, *, plan: LanePlan, costs: Costs, agenda: Agenda, queue: Queue, way: Way, record: LaneRecord
    ) -> None:
        # messages delivered and not acknowledged
        self.held = 0
        self.core = Core(agenda)
        self._plan = plan
        self._costs = costs
        self._agenda = agenda
        self._queue = queue
        self._way = way
        self._record = record
        self._batcher = Batcher(slots=plan.slots, linger_seconds=plan.linger_seconds, clock=agenda.clock)
        self._inbox: deque[Message] = deque()
        self._receives = False
        self._wakes_at: float | None = None

    # -- the consumer's thread ----------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Have a message delivered; it is received when those before it are."""
        self.held += 1
        self._inbox.append(message)
        if not self._receives:
            self._receives = True
            self.core.work(self._costs.message, self._received)

    def _received(self) -> None:
        message, now = self._inbox.popleft(), self._agenda.now
        items, message.items = message.items, []  # no cycle for the garbage collector to find
        expiry = self._plan.expiry_seconds
        waiters = []
        for item in items:
            item.received_at = now
            request: Any = item  # the batcher asks a request for its number, and nothing else
            waiters.append(Waiter(request, token=item, deadline=None if expiry is None else now + expiry))
        self._batcher.add(waiters)
        self._dispatch()
        if self._inbox:
            self.core.work(self._costs.message, self._received)
        else:
            self._receives = False

    # -- the dispatcher, and the batches' threads -----------------------------------------------

    def _dispatch(self) -> None:
        """Start what is due, and look again when the batcher says so; as ``worker.lane`` does."""
        now = self._agenda.now
        while (wake_at := self._batcher.wake_at()) is not None and wake_at <= now:
            overdue, batch = self._batcher.overdue(), self._batcher.next_batch()
            if overdue:
                self._start(overdue, Slot(None))
            if batch is not None:
                self._start(batch, Slot(self._batcher))
        if wake_at != self._wakes_at:
            self._wakes_at = wake_at
            if wake_at is not None:
                self._agenda.at(wake_at, partial(self._wake, wake_at))

    def _wake(self, planned_at: float) -> None:
        if planned_at == self._wakes_at:  # else something has come between
            self._wakes_at = None
            self._dispatch()

    def _start(self, batch: list[Waiter], slot: Slot) -> None:
        postponed: list[Waiter] = []
        begun = self._agenda.now
        steps = self._way.run(batch, postponed, self._settled)

        def asked() -> None:
            if slot.give_back():
                self._record.batch(len(batch), self._agenda.now - begun)
                self._dispatch()

        def end() -> None:
            asked()
            slot.end()
            self._batcher.postpone(postponed, POLL_SECONDS)
            self._dispatch()
            self._queue.deliver()

        self._go_on(steps, asked, end)

    def _go_on(self, steps: Steps, asked: Callable[[], None], end: Callable[[], None]) -> None:
        """Take a batch's next step, and come back when it is done."""
        step = next(steps, None)
        on = partial(self._go_on, steps, asked, end)
        if step is None:
            end()
        elif isinstance(step, Work):
            self.core.work(step.seconds, on)
        elif isinstance(step, Wait):
            self._agenda.after(step.seconds, on)
        else:
            asked()
            on()

    def _settled(self, waiter: Waiter, observed: float | None) -> None:
        message = waiter.token.message
        self._record.decided(waiter.token, observed)
        message.left -= 1
        if not message.left:
            self.held -= 1
