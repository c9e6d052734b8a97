"""Step 6: events out, confirmed by the broker. One seam, two brokers.

``amqp`` sends to the topic exchange ``presend.events``; ``stream`` adds to the Redis stream of that
name. Both give the event's structured JSON as it is, so a subscriber reads the same on either; ``messages``
says which events share a message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from worker.portability.events import Event

EVENTS = "presend.events"
"""The AMQP exchange, and the Redis stream."""


class Publisher(Protocol):
    """Sends events. Thread-safe."""

    def publish(self, events: Sequence[Event]) -> None:
        """Return once the broker has confirmed every event; ``NotConfirmed`` where it has not in time."""
        ...

    def close(self) -> None:
        """Give up the connections."""
        ...


def publisher_for(broker_url: str, *, stream_length: int, event_batch: int = 1) -> Publisher:
    """Return the publisher of a broker, with at most ``event_batch`` events a message (1: no batches).

    Nothing is opened until the first event.
    """
    if broker_url.startswith("redis"):
        from worker.publisher.stream import StreamPublisher  # noqa: PLC0415 - the other broker's client stays out

        return StreamPublisher(broker_url, length=stream_length, event_batch=event_batch)
    from worker.publisher.amqp import AmqpPublisher  # noqa: PLC0415

    return AmqpPublisher(broker_url, event_batch=event_batch)


def latest(broker_url: str, count: int) -> list[bytes]:
    """Return the bodies of the newest events, oldest first; Redis only, for RabbitMQ keeps none."""
    from worker.publisher import stream  # noqa: PLC0415

    return stream.latest(broker_url, count)


def follow(broker_url: str) -> Iterator[bytes]:
    """Yield every event's body from now on, batched or not; an empty one each second while none comes."""
    if broker_url.startswith("redis"):
        from worker.publisher import stream  # noqa: PLC0415

        return stream.follow(broker_url)
    from worker.publisher import amqp  # noqa: PLC0415

    return amqp.follow(broker_url)
