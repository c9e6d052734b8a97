"""Erasing one number wherever presend keeps it: Postgres, results in Redis, the stream of events.

What was known when it ran is erased. A request that is decided at the same time, or comes later, brings the
number anew: that is a new message from a producer, who has to be told too. Safe to run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from amqp.exceptions import NotFound
from kombu import Connection
from sqlalchemy import Engine

from worker import redis_broker, results
from worker.errors import StillInUse
from worker.portability.mentions import Mentions
from worker.publisher import stream
from worker.queues import DEAD_QUEUE, lane_queues
from worker.storage import engine, erasure
from worker.storage.erasure import InUse

_LOOK_SECONDS = 0.5
_QUEUES = [queue.name for queue in lane_queues(redis=True)]


@dataclass(frozen=True, slots=True)
class Erased:
    """Where the number was, and where it still may be."""

    # rows by table
    tables: dict[str, int]
    results: int
    # of the Redis stream; 0 on RabbitMQ, which keeps none
    events: int
    # by queue: on Redis the messages that mention the number, on RabbitMQ all that wait
    waiting: dict[str, int]
    # rows by table in which it still is: a worker stored it meanwhile, or a table is unknown to us
    left: dict[str, int]


@dataclass(frozen=True, slots=True)
class Eraser:
    """Knows the places where a number may be."""

    database: Engine
    broker_url: str
    redis_url: str
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @property
    def _on_redis(self) -> bool:
        return self.broker_url.startswith("redis")

    def find(self, mentions: Mentions) -> Erased:
        """Return what :meth:`erase` would find, erasing nothing."""
        with self.database.connect() as connection:
            tables = erasure.erase(connection, mentions, who="", reason="")
            connection.rollback()
        return Erased(tables, *self._in_redis(mentions, dry_run=True), self._waiting(mentions), {})

    def erase(self, mentions: Mentions, *, who: str, reason: str, wait_seconds: float) -> Erased:
        """Erase the number, once no call has it open any more; ``StillInUse`` where that takes too long."""
        waiting = self._waiting(mentions)  # first: a broker that is away is told before anything is gone
        self._wait_until_unused(mentions, wait_seconds)
        tables = engine.transact(
            self.database, partial(erasure.erase, mentions=mentions, who=who, reason=reason)
        )
        in_redis = self._in_redis(mentions, dry_run=False)
        left = engine.transact(self.database, partial(erasure.left, mentions=mentions))
        return Erased(tables, *in_redis, waiting, left)

    def _in_redis(self, mentions: Mentions, *, dry_run: bool) -> tuple[int, int]:
        events = stream.erase(self.broker_url, mentions, dry_run=dry_run) if self._on_redis else 0
        return results.erase(self.redis_url, mentions, dry_run=dry_run), events

    def _waiting(self, mentions: Mentions) -> dict[str, int]:
        if self._on_redis:
            return redis_broker.waiting(self.broker_url, _QUEUES, mentions)
        return _waiting_in_rabbitmq(self.broker_url)

    def _wait_until_unused(self, mentions: Mentions, seconds: float) -> None:
        deadline = self.clock() + seconds
        while any(used := engine.transact(self.database, partial(erasure.in_use, mentions=mentions))):
            if self.clock() >= deadline:
                raise StillInUse(_why(used))
            self.sleep(_LOOK_SECONDS)


def _why(used: InUse) -> str:
    what = [
        f"{number} {noun}"
        for number, noun in (
            (used.calls, "open call to the provider"),
            (used.unsent, "batch with an unsent event"),
        )
        if number
    ]
    return (
        f"nothing was erased: the number is still in {' and '.join(what)}. Run it again when presend worker "
        "has finished (an event is sent again after 30 s while upkeep runs and the broker answers)"
    )


def _waiting_in_rabbitmq(broker_url: str) -> dict[str, int]:
    """Messages ready in each queue: what is in them cannot be seen without taking them out."""
    found = {}
    channel: Any
    with Connection(broker_url, connect_timeout=5) as connection:
        for queue in (*_QUEUES, DEAD_QUEUE):
            with connection.channel() as channel:
                try:
                    found[queue] = channel.queue_declare(queue, passive=True).message_count
                except NotFound:
                    continue
    return {queue: number for queue, number in found.items() if number}
