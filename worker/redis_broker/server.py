"""The Redis server itself: its clock, and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from worker.errors import PresendError


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself."""

    # POSIX seconds
    at: float
    version: tuple[int, ...]
    version_words: str
    # None where CONFIG is not allowed
    maxmemory_policy: str | None
    appendonly: bool
    appendfsync: str | None


def facts(url: str, *, setting: str) -> Facts:
    """Ask the server that ``setting`` names; ``PresendError`` where it does not answer."""
    try:
        return _facts(url)
    except redis.RedisError as exc:
        words = str(exc).rstrip(".")
    raise PresendError(f"Redis does not answer: {words}. Start it, or mend {setting}")


def _facts(url: str) -> Facts:
    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
        its: Any = client
        seconds, micros = its.time()
        info = its.info()
        words = str(info.get("valkey_version") or info["redis_version"])
        return Facts(
            at=seconds + micros / 1e6,
            version=tuple(int(part) for part in words.split(".")[:2] if part.isdigit()),
            version_words=words,
            maxmemory_policy=info.get("maxmemory_policy"),
            appendonly=bool(info.get("aof_enabled")),
            appendfsync=_configured(its, "appendfsync"),
        )


def _configured(client: Any, name: str) -> str | None:
    try:
        found = client.config_get(name)
    except redis.ResponseError:  # a hosted one may forbid it
        return None
    value = found.get(name, found.get(name.encode()))
    return value.decode() if isinstance(value, bytes) else value
