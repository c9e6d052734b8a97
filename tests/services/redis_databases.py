"""Redis for the tests: one database, held alone, on a server that may be anybody's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.services.locks import lock_path, try_lock

CONNECT_SECONDS = 3
REDIS_DATABASES = range(8, 16)
"""Those tests may take and flush; 0 to 7 are never touched."""


def redis_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(
            url, socket_connect_timeout=CONNECT_SECONDS, retry=Retry(NoBackoff(), 0)
        ) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@contextlib.contextmanager
def redis_database(server: str) -> Iterator[str]:
    """Hold a database that no other test session holds, and that is empty or was left by a killed one."""
    where = urlsplit(server)
    for number in REDIS_DATABASES:
        url = urlunsplit(where._replace(path=f"/{number}"))
        name = f"redis-{where.hostname}-{where.port}-{number}"
        with try_lock(name) as locked:
            if not locked or not (_empty(url) or lock_path(name).stat().st_size):
                continue
            with contextlib.suppress(PermissionError):  # another user's file: then a killed session stays
                lock_path(name).write_text("in use by tests; if nobody holds the lock, left by them\n")
            yield url
            flush(url)
            with contextlib.suppress(PermissionError):
                os.truncate(lock_path(name), 0)
            return
    pytest.fail(f"no free Redis database among 8 to 15 on {where.hostname}: each is held or has keys in it")


def _empty(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        return client.dbsize() == 0


def messages_left(url: str, queues: Iterable[str]) -> dict[str, int]:
    """Messages in presend's queues, by queue, and those taken and not acknowledged (`held`)."""
    with redis.Redis.from_url(url) as client:
        left: dict[str, Any] = {name: client.llen(name) for name in queues}
        fields = (field for key in client.scan_iter("presend:held:*") for field in client.hkeys(key))
        left["held"] = sum(field.isdigit() for field in fields)
    return {name: number for name, number in left.items() if number}


def flush(url: str) -> None:
    """Empty this one database."""
    with redis.Redis.from_url(url) as client:
        client.flushdb()
