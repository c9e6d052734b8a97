"""Celery results, written as Celery's own Redis backend writes them, so that any client's ``.get()`` works.

A batch's results go in one round trip. Redis may be gone: decisions never wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker import logs
from worker.portability.mentions import Mentions

log = logs.get(__name__)

_KEY = "celery-task-meta-"
_WRITE = """
for at, key in ipairs(KEYS) do
    redis.call('SETEX', key, ARGV[1], ARGV[at + 1])
    redis.call('PUBLISH', key, ARGV[at + 1])
end
"""
"""One command for a batch: as two for each result, redis-py would take longer over them than Redis does."""
_DEADLINE_SECONDS = 0.5
_AT_ONCE = 1000
_AT_ONCE_BYTES = 1024
"""Redis says no more than that it was done; redis-py's 64 kB, each cut to that, left holes in the heap."""
_LEAVE_ALONE_SECONDS = 5.0
"""After a failure Redis is not tried again for so long: a dead one must cost no batch its time-out."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The end of one message: what its producer's ``.get()`` returns, or why it was rejected."""

    task_id: str
    # plain JSON types; None where rejected
    value: Any = None
    # why the message is a dead letter; its producer's ``.get()`` raises ``Rejected`` with it
    rejected: str | None = None


class ResultWriter:
    """Writes results to ``PRESEND_REDIS_URL``. Thread-safe."""

    def __init__(
        self, redis_url: str, *, keep_seconds: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_timeout=_DEADLINE_SECONDS,
            socket_connect_timeout=_DEADLINE_SECONDS,
            retry=Retry(NoBackoff(), 1),
            socket_read_size=_AT_ONCE_BYTES,
        )
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._leave_alone_until = 0.0

    def write(self, results: Sequence[TaskResult]) -> None:
        """Set and announce results; a Redis that does not answer is logged and left alone for a while."""
        if not results or self._clock() < self._leave_alone_until:
            return
        done_at = datetime.now(UTC).isoformat()
        try:
            for begin in range(0, len(results), _AT_ONCE):
                part = results[begin : begin + _AT_ONCE]
                keys = [_KEY + result.task_id for result in part]
                bodies = [msgspec.json.encode(_meta(result, done_at)) for result in part]
                self._redis.eval(_WRITE, len(part), *keys, self._keep_seconds, *bodies)
        except redis.RedisError as exc:
            self._leave_alone_until = self._clock() + _LEAVE_ALONE_SECONDS
            log.warning(
                "results_not_written",
                results=len(results),
                error=type(exc).__name__,
                next_step="see PRESEND_REDIS_URL",
            )

    def look(self) -> None:
        """Log it where Redis cannot be reached, which is no reason not to start."""
        try:
            self._redis.ping()
        except redis.RedisError as exc:
            log.warning(
                "result_backend_not_reached",
                error=type(exc).__name__,
                next_step="producers get no results until PRESEND_REDIS_URL answers: see presend doctor",
            )

    def close(self) -> None:
        """Give up the connections."""
        self._redis.close()


def erase(redis_url: str, mentions: Mentions, *, dry_run: bool = False) -> int:
    """Delete the results that mention a number; return how many those are."""
    with redis.Redis.from_url(redis_url, socket_timeout=5) as client:
        # gathered first: a scan and deletions in between are no pair
        keys: list[Any] = list(client.scan_iter(match=f"{_KEY}*", count=_AT_ONCE))
        found = []
        for begin in range(0, len(keys), _AT_ONCE):
            part = keys[begin : begin + _AT_ONCE]
            bodies: Any = client.mget(part)
            found += [
                key
                for key, body in zip(part, bodies, strict=True)
                if mentions.in_text(key.decode()) or mentions.in_body(body or b"")
            ]
        for begin in range(0, len(found), _AT_ONCE) if not dry_run else ():
            client.delete(*found[begin : begin + _AT_ONCE])
    return len(found)


def _meta(result: TaskResult, done_at: str) -> dict[str, Any]:
    succeeded = result.rejected is None
    return {
        "status": "SUCCESS" if succeeded else "FAILURE",
        "result": result.value
        if succeeded
        else {"exc_type": "Rejected", "exc_message": [result.rejected], "exc_module": "worker.errors"},
        "traceback": None,
        "children": [],
        "date_done": done_at,
        "task_id": result.task_id,
    }
