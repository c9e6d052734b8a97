"""Events to the Redis stream ``presend.events``, field ``event``, in the broker's database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.errors import NotConfirmed
from worker.portability.events import Event
from worker.portability.mentions import Mentions
from worker.publisher import EVENTS

_FIELD = "event"
_BLOCK_MILLISECONDS = 1000
_AT_ONCE = 1000


class StreamPublisher:
    """Adds batches of events to the stream, trimmed near ``length``."""

    def __init__(self, broker_url: str, *, length: int) -> None:
        # One retry, for a connection that died idle; more would outlast the relay's patience.
        self._redis = redis.Redis.from_url(broker_url, socket_timeout=5, retry=Retry(NoBackoff(), 1))
        self._length = length

    def publish(self, events: Sequence[Event]) -> None:
        """Add events in one round trip; the server's replies are the confirms."""
        if not events:
            return
        pipe = self._redis.pipeline(transaction=False)
        for event in events:
            pipe.xadd(EVENTS, {_FIELD: event.body}, maxlen=self._length, approximate=True)
        try:
            pipe.execute()
        except redis.RedisError as exc:
            raise NotConfirmed(f"Redis did not take the events: {type(exc).__name__}") from exc

    def close(self) -> None:
        """Give up the connections."""
        self._redis.close()


def follow(broker_url: str) -> Iterator[bytes]:
    """Yield the body of every event added from now on."""
    with redis.Redis.from_url(broker_url, socket_timeout=5) as client:
        last: Any = _last_id(client)
        yield b""
        while True:
            streams: Any = client.xread({EVENTS: last}, count=1000, block=_BLOCK_MILLISECONDS)
            if not streams:
                yield b""
                continue
            for entry_id, fields in streams[0][1]:
                last = entry_id
                yield fields[_FIELD.encode()]


def latest(broker_url: str, count: int) -> list[bytes]:
    """Return the bodies of the newest ``count`` events, oldest first."""
    with redis.Redis.from_url(broker_url, socket_timeout=5) as client:
        newest: Any = client.xrevrange(EVENTS, count=count)
    return [fields[_FIELD.encode()] for _, fields in reversed(newest)]


def erase(broker_url: str, mentions: Mentions, *, dry_run: bool = False) -> int:
    """Delete the stream's events that mention a number; return how many those are."""
    found = 0
    with redis.Redis.from_url(broker_url, socket_timeout=5) as client:
        after: Any = "-"
        while entries := client.xrange(EVENTS, min=after, count=_AT_ONCE):
            after = b"(" + entries[-1][0]
            ids = [
                entry_id
                for entry_id, fields in entries
                if any(mentions.in_body(value) for value in fields.values())
            ]
            found += len(ids)
            if ids and not dry_run:
                client.xdel(EVENTS, *ids)
    return found


def _last_id(client: redis.Redis) -> Any:
    newest: Any = client.xrevrange(EVENTS, count=1)
    return newest[0][0] if newest else "0-0"
