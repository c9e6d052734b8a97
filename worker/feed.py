"""The feed: takes messages into lanes, and settles them when their batches are decided.

Reading and acknowledging happen on the consumer's own thread, settling on the threads of the batches. Each
(re)connection is a new generation: what waited is dropped, for the broker delivers it again; what is in a
call is committed and its events are sent, only its acknowledgement is left out. The same holds for messages
given back to their queue, because their lane is stopped or they have waited too long.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from worker import logs, tracing
from worker.batch import CONFLICT
from worker.batching import BatchOutcome, Waiter
from worker.deliveries import Delivery, read_message, task_id_of, unreadable_letter
from worker.errors import Rejected
from worker.intake import Intake, Taken
from worker.lane import LaneRunner
from worker.lane_control import LaneControl
from worker.metrics import lanes, messages
from worker.parking import Decided, Parking
from worker.pipeline import Pipeline
from worker.portability import letter_ids
from worker.portability.events import check_data
from worker.portability.records import CheckedRequest
from worker.portability.requests import Lane
from worker.prefetch import Prefetch
from worker.queues import prefetch
from worker.results import ResultWriter, TaskResult
from worker.storage.dead_letters import DeadLetter
from worker.storage.suspicions import Suspicions
from worker.suspects import Suspects
from worker.suspicion import SUSPECT_AFTER, Suspicion, failed_deliveries
from worker.task_events import TaskEvents
from worker.unsettled import Unsettled

log = logs.get(__name__)

SHUTDOWN_SECONDS = 20.0
"""How long a warm shutdown waits for batches in flight; the rest goes back to the queue."""
LONGEST_WAIT_SECONDS = 600.0
"""What has waited in a lane for so long goes back to its queue, to be received again: RabbitMQ closes the
channel of a consumer that holds a message for half an hour."""
_GIVEN_BACK_AT_ONCE = 200
"""Messages; more would keep the consumer's thread from another lane's: on Redis each costs round trips."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the consumer is built from; made by :mod:`worker.bootstrap`."""

    pipeline: Pipeline
    results: ResultWriter
    intake: Mapping[Lane, Intake]
    slots: Mapping[Lane, int]
    linger_seconds: Mapping[Lane, float]
    lane_control: LaneControl
    suspicions: Suspicions
    # told the lanes once the process takes their messages, so that it can be seen
    announce: Callable[[Collection[Lane]], None] = lambda _lanes: None


class CheckTaskLike(Protocol):
    """What the feed needs of a task."""

    name: str
    lane: Lane
    many: bool


class BrokerConsumer(Protocol):
    """What the feed needs of Celery's consumer."""

    connection_errors: tuple[type[BaseException], ...]
    # None while no events are sent
    event_dispatcher: Any
    # kombu's event loop: the consumer's own thread
    hub: Any

    def prefetch_changed(self) -> None:
        """Told that a lane's prefetch is another now."""


class Feed:
    """Takes messages into lanes and settles them. One a process; outlives its connections."""

    def __init__(self, consumer: BrokerConsumer, parts: Parts, works_for: Collection[Lane] = ()) -> None:
        self._consumer = consumer
        self._parts = parts
        self._lanes: dict[Lane, LaneRunner] = {}
        self._settling = threading.Lock()
        self._unsettled = Unsettled()
        self._most_items = prefetch(max(parts.slots.values()))
        self._prefetch = {lane: Prefetch(self._most_items) for lane in Lane}
        # messages that came though their lane has enough items, by lane
        self._unread: dict[Lane, deque[Delivery]] = {lane: deque() for lane in Lane}
        self._going_back: deque[Delivery] = deque()
        # What the consumer's own thread has to do, in order: its hub runs callbacks in any order.
        self._to_do: deque[Callable[[], None]] = deque()
        self._suspects = Suspects(parts.suspicions)
        # suspects whose history nobody has read yet
        self._unknown: deque[Waiter] = deque()
        self._parking = Parking(parts.pipeline.park)
        self._events = TaskEvents(consumer)
        lanes.show_held(self._unsettled.by_lane, works_for)

    # -- on the consumer's thread -------------------------------------------------------------

    def drop(self) -> None:
        """Forget what waits and what is held: with a new connection it all comes again."""
        for lane in self._lanes.values():
            lane.forget()
        for name, held in self._unsettled.by_lane().items():
            messages.ended(name, messages.DROPPED, held.messages)
        self._unsettled.clear()
        self._going_back.clear()
        for unread in self._unread.values():
            unread.clear()
        self._prefetch = {lane: Prefetch(self._most_items) for lane in Lane}
        self._events.flush()

    def take(
        self,
        task: CheckTaskLike,
        message: Any,
        body: Any,
        _ack: Any,
        _reject: Any,
        _callbacks: Any,
        **_options: Any,
    ) -> None:
        """Take one message: read it, now or when there is room, and let its items wait in their lane."""
        delivery = Delivery(
            message,
            task_id_of(message),
            task.name,
            task.lane,
            task.many,
            {},
            datetime.now(UTC),
            wants_result=not message.headers.get("ignore_result"),
            task=task,
        )
        if tracing.on():
            delivery.trace = tracing.received(
                message.headers, task=task.name, lane=task.lane, at=delivery.received_at
            )
        self._unsettled.add(delivery)
        messages.received(task.lane)
        if body is not None:
            self._events.received(delivery)
            self._reject_whole(
                delivery, "Celery protocol 1 is not supported: set task_protocol = 2 in the producer"
            )
        elif (unread := self._unread[task.lane]) or self._is_full(task.lane):
            unread.append(delivery)
        else:
            self._begin(delivery)
        self._look_at(task.lane)

    def park_unreadable(self, message: Any, reason: str) -> None:
        """Park a message that belongs to no task of ours."""
        delivery = Delivery(
            message,
            task_id_of(message),
            str(message.headers.get("task") if message.headers else None),
            None,
            False,
            {},
            datetime.now(UTC),
            wants_result=bool(message.headers) and "id" in message.headers,
        )
        self._unsettled.add(delivery)
        messages.received(None)
        self._reject_whole(delivery, reason)

    def stop(self, lane: Lane) -> None:
        """Start no further call in a lane, and give back what waits there; calls in flight end normally."""
        self._give_back([*_deliveries(self._lane(lane).stop()), *self._unread[lane]])

    def go_on(self, lane: Lane) -> None:
        """Start calls in a lane again."""
        self._lane(lane).go_on()
        self._look_at(lane)

    def give_back_old(self) -> None:
        """Give back what has waited too long.

        A message that does not wait in a lane, because Postgres does not take its answer or its dead letter,
        is given twice the time: its number may be bought again, as after any other loss of an answer.
        """
        old = set(self._unsettled.held_for(LONGEST_WAIT_SECONDS))
        if not old:
            return
        for lane in self._lanes.values():
            self._give_back(_deliveries(lane.take_back(waiting_seconds=LONGEST_WAIT_SECONDS)))
        for unread in self._unread.values():
            self._give_back([delivery for delivery in unread if delivery in old])
        self._give_back(self._unsettled.held_for(2 * LONGEST_WAIT_SECONDS))

    def items_held(self, queue: str) -> int:
        """How many items the messages held of a queue have."""
        return self._unsettled.items(queue)

    def prefetch(self, lane: Lane) -> int:
        """How many messages of a lane's queue may be held now."""
        return self._prefetch[lane].messages

    def finish(self) -> None:
        """Do what batches left for this thread: acknowledge and report, in order."""
        while self._to_do:
            self._to_do.popleft()()

    def start_nothing_more(self) -> None:
        """Start no further call. Takes no lock: safe in a signal handler."""
        for lane in self._lanes.values():
            lane.start_nothing_more()

    def close(self) -> None:
        """Finish the batches in flight, start no new call; unfinished messages go back to the queue."""
        self._parts.pipeline.give_up()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        for lane in self._lanes.values():
            if not lane.close(timeout_seconds=max(0.0, deadline - time.monotonic())):
                log.warning("shutdown_did_not_wait", lane=lane.lane, seconds=SHUTDOWN_SECONDS)
        self._parking.close()
        self.finish()
        self._events.flush()

    def snapshot(self) -> dict[str, Any]:
        """What ``celery inspect lanes`` shows."""
        return {lane.value: runner.snapshot() for lane, runner in self._lanes.items()}

    def _begin(self, delivery: Delivery) -> None:
        try:
            items = self._read(delivery.task, delivery)
        except Rejected as exc:
            self._events.received(delivery)
            self._reject_whole(delivery, exc.reason)
            return
        self._events.received(delivery)
        self._feed_lane(delivery, items)

    def _is_full(self, lane: Lane) -> bool:
        """Whether a message is left as it came, in a tenth of the memory, for so many items are held."""
        return self._unsettled.items(lane) > 2 * self._most_items

    def _read_some(self, lane: Lane) -> None:
        """Read a message that was left as it came, if there is room now, and come back for the next one."""
        unread = self._unread[lane]
        if unread and not self._is_full(lane):
            self._begin(unread.popleft())
            self._next(partial(self._read_some, lane))
        self._look_at(lane)

    def _look_at(self, lane: Lane) -> None:
        held = self._unsettled
        if self._prefetch[lane].look(
            messages=held.messages(lane), items=held.items(lane), unread=len(self._unread[lane])
        ):
            self._next(self._consumer.prefetch_changed)

    def _read(self, task: CheckTaskLike, delivery: Delivery) -> list[Taken]:
        read = read_message(delivery.message)
        delivery.arguments = read.arguments
        intake = self._parts.intake[task.lane]
        now, expires = delivery.received_at, read.expires
        if task.many:
            return intake.take_many(read.arguments, now=now, expires=expires)
        return [intake.take_one(read.arguments, now=now, expires=expires)]

    def _feed_lane(self, delivery: Delivery, items: Sequence[Taken]) -> None:
        self._unsettled.expect(delivery, len(items))
        waiters, letters = [], []
        came_before = delivery.may_have_come_before
        for index, item in enumerate(items):
            if item.request is not None:
                deadline = _deadline(item.request.expires_at, delivery.received_at)
                waiters.append(
                    Waiter(
                        item.request,
                        token=(delivery, index, item.arguments),
                        deadline=deadline,
                        letter_id=delivery.letter_id(index) if came_before else None,
                        trace=delivery.trace,
                    )
                )
            else:
                letters.append((index, item))
        if letters:
            self._park_items(delivery, letters)
        if waiters and failed_deliveries(delivery.message.headers) >= SUSPECT_AFTER:
            for waiter in waiters:
                waiter.suspicion = Suspicion(letter_ids.written(delivery.letter_id(waiter.token[1])))
            self._unknown.extend(waiters)
            self._parking.do(self._read_suspicions)
        elif waiters:
            self._lane(waiters[0].request.lane).submit(waiters)
        elif not letters:
            log.warning("message_without_items", task=delivery.name, task_id=delivery.id)
            self._complete([delivery])

    def _feed_suspects(self, suspects: Sequence[Waiter]) -> None:
        """Let suspects wait in their lanes; the guilty are parked."""
        guilty: dict[int, tuple[Delivery, list[tuple[int, Taken]]]] = {}
        for waiter in suspects:
            delivery, index, arguments = waiter.token
            if waiter.suspicion is None or not self._unsettled.holds(delivery):
                continue
            if waiter.suspicion.guilty:
                # with its request: one of those that died may have decided it
                letter = (index, Taken(arguments, waiter.request, waiter.suspicion.reason()))
                guilty.setdefault(id(delivery), (delivery, []))[1].append(letter)
            else:
                self._lane(waiter.request.lane).submit([waiter])
        for delivery, letters in guilty.values():
            self._park_items(delivery, letters)

    def _lane(self, lane: Lane) -> LaneRunner:
        runner = self._lanes.get(lane)
        if runner is None:
            runner = self._lanes[lane] = LaneRunner(
                lane,
                slots=self._parts.slots[lane],
                linger_seconds=self._parts.linger_seconds[lane],
                run_batch=partial(self._parts.pipeline.run_batch, told=self._tell),
                settle=self._settle,
                suspects=self._suspects,
                started=self._started,
            )
        return runner

    def _give_back(self, deliveries: Iterable[Delivery]) -> None:
        """Give whole messages back; of a ``*_many`` what is decided is repeated from the ledger."""
        going = [one for one in deliveries if self._unsettled.remove(one)]
        if going:
            for lane, unread in self._unread.items():
                self._unread[lane] = deque(filter(self._unsettled.holds, unread))
            log.info("messages_given_back", messages=len(going))
            messages.ended(going[0].lane, messages.GIVEN_BACK, len(going))
            self._going_back += going
            self._give_some_back()

    def _give_some_back(self) -> None:
        for _ in range(min(_GIVEN_BACK_AT_ONCE, len(self._going_back))):
            delivery = self._going_back.popleft()
            delivery.message.reject_log_error(log, self._consumer.connection_errors, requeue=True)
            tracing.ended(delivery.trace, messages.GIVEN_BACK)
        if self._going_back:
            self._next(self._give_some_back)

    def _next(self, work: Callable[[], None]) -> None:
        """Do this next, on this same thread.

        What kombu's ``call_soon`` is given here waits until something arrives, a second at most: the loop
        looks for that once more before it comes to what was asked for in a callback.
        """
        self._consumer.hub.call_later(0, work)

    def _acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        # Not one that was dropped or given back: its id may be a redelivered message's now.
        ours = [delivery for delivery in deliveries if self._unsettled.remove(delivery)]
        _count_ended(ours)
        errors = self._consumer.connection_errors
        try:
            with _together(ours):
                for delivery in ours:
                    delivery.message.ack_log_error(log, errors)
                    delivery.acknowledged = True
        except errors as exc:  # the consumer finds its connection broken too, and the broker delivers again
            log.warning("acknowledgements_not_written", messages=len(ours), error=str(exc))
        for delivery in deliveries:
            self._events.ended(delivery)
            if delivery.trace is not None:
                tracing.ended(
                    delivery.trace, messages.DECIDED if delivery.reason is None else messages.REJECTED
                )
        if ours and (lane := ours[0].lane) is not None:
            self._read_some(lane)

    def _report_start(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            if self._unsettled.begin(delivery):
                self._events.started(delivery)

    # -- on any thread ------------------------------------------------------------------------

    def _on_consumer_thread(self, work: Callable[[], None]) -> None:
        self._to_do.append(work)
        self._consumer.hub.call_soon(self.finish)

    def _started(self, waiters: Sequence[Waiter]) -> None:
        now = time.monotonic()
        fresh = []
        for waiter in waiters:
            delivery: Delivery = waiter.token[0]
            if delivery.started is None:
                delivery.started = now
                fresh.append(delivery)
        if fresh:
            self._on_consumer_thread(partial(self._report_start, fresh))

    def _tell(self, outcome: BatchOutcome) -> None:
        """Write the results of messages of one item, which are stored now: somebody may wait for each.

        Their events are still to be confirmed; whatever keeps them from it, the relay sends them.
        """
        results = []
        for waiter, row in outcome.decided:
            delivery: Delivery = waiter.token[0]
            if delivery.wants_result and not delivery.many:
                delivery.wants_result = False
                results.append(TaskResult(delivery.id, value=check_data(row)))
        self._parts.results.write(results)

    def _settle(self, outcome: BatchOutcome) -> None:
        """Settle a batch's items; messages whose last item this was get what result is due, and their ack."""
        letters = [_letter(waiter, reason) for waiter, reason in outcome.rejected]
        decided = self._parts.pipeline.park(letters) if letters else {}
        touched: dict[int, Delivery] = {}
        with self._settling:
            for waiter, row in outcome.decided:
                delivery, index, _ = waiter.token
                delivery.decided(index, row, check_data(row) if delivery.wants_result else None)
                touched[id(delivery)] = delivery
            for (waiter, reason), letter in zip(outcome.rejected, letters, strict=True):
                delivery, index, _ = waiter.token
                _end(delivery, index, decided.get(letter.id), reason)
                touched[id(delivery)] = delivery
            complete = [delivery for delivery in touched.values() if delivery.left == 0]
        self._complete(complete)

    def _complete(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            self._parts.results.write([one.result() for one in deliveries if one.wants_result])
            self._on_consumer_thread(partial(self._acknowledge, deliveries))

    def _reject_whole(self, delivery: Delivery, reason: str) -> None:
        letter = unreadable_letter(delivery.message, reason=reason, received_at=delivery.received_at)
        delivery.reason = reason
        self._parking.park([letter], partial(self._whole_parked, delivery))

    def _whole_parked(self, delivery: Delivery, _decided: Decided) -> None:
        delivery.left = 0
        self._complete([delivery])

    def _park_items(self, delivery: Delivery, items: Sequence[tuple[int, Taken]]) -> None:
        letters = [
            delivery.letter(index, item.arguments, item.reason or "", item.request) for index, item in items
        ]
        places = [index for index, _ in items]
        self._parking.park(letters, partial(self._items_parked, delivery, places, letters))

    def _items_parked(
        self, delivery: Delivery, places: Sequence[int], letters: Sequence[DeadLetter], decided: Decided
    ) -> None:
        with self._settling:
            for index, letter in zip(places, letters, strict=True):
                _end(delivery, index, decided.get(letter.id), letter.reason)
            complete = [delivery] if delivery.left == 0 else []
        self._complete(complete)

    def _read_suspicions(self) -> None:
        """Read what is held against suspects, all that have come meanwhile at once."""
        suspects = [self._unknown.popleft() for _ in range(len(self._unknown))]
        if not suspects:
            return
        ids = [waiter.suspicion.item_id for waiter in suspects if waiter.suspicion is not None]
        noted = self._parts.suspicions.read([item_id for item_id in ids if item_id is not None])
        for waiter in suspects:
            if waiter.suspicion is not None:
                waiter.suspicion = noted.get(waiter.suspicion.item_id or "", waiter.suspicion)
        self._on_consumer_thread(partial(self._feed_suspects, suspects))


def _end(delivery: Delivery, index: int, row: CheckedRequest | None, reason: str) -> None:
    """Settle an item that was given up; it has a row where it is decided all the same."""
    if row is None:
        delivery.rejected(index, reason)
    else:
        delivery.decided(index, row, check_data(row) if delivery.wants_result else None)


def _count_ended(deliveries: Sequence[Delivery]) -> None:
    """Count messages of one lane, as those settled together are."""
    if deliveries:
        lane, rejected = deliveries[0].lane, sum(one.reason is not None for one in deliveries)
        messages.ended(lane, messages.REJECTED, rejected)
        messages.ended(lane, messages.DECIDED, len(deliveries) - rejected)


def _together(deliveries: Sequence[Delivery]) -> AbstractContextManager[None]:
    """Write the acknowledgements of one connection's messages at once, where its channel can."""
    channel = getattr(deliveries[0].message, "channel", None) if deliveries else None
    together = getattr(channel, "acknowledging_together", nullcontext)
    return together()


def _letter(waiter: Waiter, reason: str) -> DeadLetter:
    """The dead letter of a request that was given up; a contradiction is parked beside its key's row."""
    delivery, index, arguments = waiter.token
    request = None if reason == CONFLICT else waiter.request
    letter: DeadLetter = delivery.letter(index, arguments, reason, request)
    return letter


def _deliveries(waiters: Iterable[Waiter]) -> list[Delivery]:
    """The messages these requests came in, each once."""
    return list(dict.fromkeys(waiter.token[0] for waiter in waiters))


def _deadline(expires_at: datetime | None, received_at: datetime) -> float | None:
    """The monotonic moment of a request's expiry."""
    if expires_at is None:
        return None
    return time.monotonic() + (expires_at - received_at).total_seconds()
