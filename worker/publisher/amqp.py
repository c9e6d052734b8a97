"""Events to RabbitMQ: a durable topic exchange, persistent and mandatory, a batch in one write.

One confirm at a time is 2,600 events a second, a thousand in flight is 20,000 (docs/decisions). A thread
that publishes has a connection of its own for that time: AMQP channels are not thread-safe, and consuming
connections must not be blocked together with publishing ones when the broker is short of memory.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import chain, takewhile
from typing import Any, cast

from amqp.exceptions import AMQPError
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError

from worker import logs, memory
from worker.errors import NotConfirmed
from worker.metrics import events as counted
from worker.portability.events import Event
from worker.publisher import EVENTS
from worker.publisher.frames import Frames
from worker.publisher.messages import bodies_in, together

log = logs.get(__name__)

CONFIRM_SECONDS = 10.0
"""Past this the relay takes over."""
_CONNECT_SECONDS = 5.0
_BROKEN = (OSError, AMQPError, OperationalError)
"""What a dead connection, a closed channel or an unreachable broker raises."""


class AmqpPublisher:
    """Publishes batches of events, each on a connection that no other thread uses meanwhile."""

    def __init__(self, broker_url: str, *, event_batch: int = 1) -> None:
        self._broker_url = broker_url
        self._event_batch = event_batch
        self._idle: deque[_Channel] = deque()
        self.unrouted: Counter[str] = Counter()
        """Events that nobody subscribes to, by type; they count as sent."""

    def publish(self, events: Sequence[Event]) -> None:
        """Send events and wait for the broker's confirms; once more on a new connection if one broke."""
        deadline = time.monotonic() + CONFIRM_SECONDS
        left = list(events)
        while left:
            channel = self._borrow()
            fresh = channel is None
            try:
                channel = channel or _Channel(self._broker_url, self._event_batch)
                left = channel.send(left, deadline)
            except _BROKEN as exc:
                if channel is not None:
                    channel.close()
                self.close()  # the idle ones broke with it, or would lie there until their turn, hours later
                memory.let_go()
                if fresh:
                    counted.sent(left, left=left)
                    raise NotConfirmed(f"broker connection failed: {type(exc).__name__}") from exc
                continue  # an idle connection had died; a fresh one tells whether the broker did
            unrouted = channel.take_unrouted()
            self.unrouted.update(unrouted)
            counted.unrouted(unrouted)
            counted.sent(events, left=left)
            if left:
                channel.close()
                raise NotConfirmed(f"{len(left)} of {len(events)} events not confirmed by the broker")
            self._idle.append(channel)

    def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop().close()

    def _borrow(self) -> _Channel | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None


class _Channel:
    """One connection and its channel in confirm mode; used by one thread at a time."""

    def __init__(self, broker_url: str, event_batch: int) -> None:
        self._event_batch = event_batch
        # No heartbeat: an idle connection that died is noticed by the next batch, and replaced.
        # A write that the broker does not take, as it does when short of memory, ends like a lost connection.
        self._connection: Any = Connection(
            broker_url,
            connect_timeout=_CONNECT_SECONDS,
            heartbeat=0,
            transport_options={"write_timeout": CONFIRM_SECONDS},
        )
        self._connection.connect()
        self._channel = cast("Any", self._connection.channel())
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)
        Exchange(EVENTS, type="topic", durable=True).bind(self._channel).declare()
        amqp = self._connection.connection
        self._transport = amqp.transport
        self._frames = Frames(self._channel.channel_id, EVENTS, frame_max=amqp.frame_max)
        self._sequence = 0
        # the events of unconfirmed messages, in the order of their delivery tags
        self._open: dict[int, Sequence[Event]] = {}
        self._refused: list[Event] = []
        self._unrouted: list[str] = []

    def send(self, events: Sequence[Event], deadline: float) -> list[Event]:
        """Send events; return those the broker refused or did not confirm before ``deadline``."""
        messages = together(events, self._event_batch)
        for message in messages:
            self._sequence += 1
            self._open[self._sequence] = message
        written = self._frames.of if self._event_batch == 1 else self._frames.of_batch
        self._transport.write(b"".join(map(written, messages)))
        while self._open and (left := deadline - time.monotonic()) > 0:
            try:
                self._connection.drain_events(timeout=left)
            except TimeoutError:
                break
        unconfirmed = [*self._refused, *chain.from_iterable(self._open.values())]
        self._refused = []
        return unconfirmed

    def take_unrouted(self) -> list[str]:
        """Return the types of events that came back, once."""
        types, self._unrouted = self._unrouted, []
        return types

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        try:
            self._connection.collect(socket_timeout=1)
        except _BROKEN:
            log.debug("publisher_connection_gone")

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        self._settled(delivery_tag, multiple)

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        self._refused += self._settled(delivery_tag, multiple)

    def _on_return(self, _exc: Any, _exchange: str, routing_key: str, message: Any) -> None:
        self._unrouted += [routing_key] * len(bodies_in(_bytes(message.body)))

    def _settled(self, delivery_tag: int, multiple: bool) -> list[Event]:
        if not multiple:
            return list(self._open.pop(delivery_tag, ()))
        tags = list(takewhile(lambda tag: tag <= delivery_tag, self._open))
        return [event for tag in tags for event in self._open.pop(tag)]


def follow(broker_url: str) -> Iterator[bytes]:
    """Yield the body of every event from now on, from a queue that ends with this subscription."""
    connection: Any
    with Connection(broker_url, connect_timeout=_CONNECT_SECONDS) as connection:
        queue = Queue("", Exchange(EVENTS, type="topic", durable=True), routing_key="#", exclusive=True)
        bodies: deque[bytes] = deque()
        with connection.channel() as channel:
            consumer = connection.Consumer(
                queue,
                channel=channel,
                no_ack=True,
                on_message=lambda message: bodies.extend(bodies_in(_bytes(message.body))),
            )
            with consumer:
                yield b""
                while True:
                    try:
                        connection.drain_events(timeout=1.0)
                    except TimeoutError:
                        yield b""
                    while bodies:
                        yield bodies.popleft()


def _bytes(body: bytes | str | memoryview) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)
