"""What waits in the queues, counted by the broker."""

from __future__ import annotations

from typing import Any, NamedTuple

from kombu import Connection

from worker.portability.requests import Lane
from worker.queues import DEAD_QUEUE

_CONNECT_SECONDS = 3


class Backlog(NamedTuple):
    """A queue as it stands."""

    # those that consumers hold are not among them
    messages: int
    # None: this broker does not know (Redis)
    consumers: int | None


def read(broker_url: str) -> dict[str, Backlog]:
    """Return the queues by name; one that does not exist yet is absent.

    Raises what kombu raises where the broker does not answer: ``OSError`` or ``OperationalError``.
    """
    connection: Any
    with Connection(broker_url, connect_timeout=_CONNECT_SECONDS) as connection:
        connection.ensure_connection(max_retries=1, timeout=_CONNECT_SECONDS)
        lanes = [Lane.RECHARGE.value, Lane.SMS.value]
        if connection.transport.driver_type == "redis":
            with connection.channel() as channel:
                # an empty list does not exist, so asking for the queue would not find it
                return {name: Backlog(channel._size(name), None) for name in lanes}
        found = {}
        for name in (*lanes, DEAD_QUEUE):
            # asking for one that is not there closes the channel, so each has its own
            with connection.channel() as channel:
                try:
                    its = channel.queue_declare(name, passive=True)
                except connection.channel_errors:
                    continue
            found[name] = Backlog(its.message_count, its.consumer_count)
        return found
