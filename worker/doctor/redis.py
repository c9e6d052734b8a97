"""Redis or Valkey: for results, and as broker, where it must keep what it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker.doctor.finding import Finding, clock, fail, ok, warn
from worker.redis_broker import server

if TYPE_CHECKING:
    from worker.config import Settings

_FIRST_VERSION = (6, 2)
_BROKER = "PRESEND_BROKER_URL"


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at the Redis of the results."""
    yield from _seen("Redis, results", settings.redis_url, "PRESEND_REDIS_URL")


def as_broker(url: str) -> Iterator[Finding]:
    """Look at a Redis that is the broker: what it forgets is lost."""
    yield from _seen("Redis, broker", url, _BROKER)
    facts = server.facts(url, setting=_BROKER)
    subject = "Redis, broker, memory"
    if facts.maxmemory_policy is None:
        yield warn(subject, "its configuration may not be read", "make sure of maxmemory-policy noeviction")
    elif facts.maxmemory_policy != "noeviction":
        yield fail(
            subject,
            f"maxmemory-policy {facts.maxmemory_policy}",
            "set maxmemory-policy noeviction: it may drop messages",
        )
    else:
        yield ok(subject, "noeviction")
    yield persistence(facts)


def persistence(facts: server.Facts) -> Finding:
    """Whether a restart keeps the messages."""
    subject = "Redis, broker, persistence"
    if not facts.appendonly:
        return fail(subject, "appendonly no", "set appendonly yes: a restart would lose every message")
    if facts.appendfsync not in {None, "always"}:
        return warn(
            subject,
            f"appendfsync {facts.appendfsync}",
            "a crash of its machine may cost the last second: appendfsync always, if that is too much",
        )
    return ok(subject, "appendonly yes")


def _seen(subject: str, url: str, setting: str) -> Iterator[Finding]:
    asked = time.time()
    facts = server.facts(url, setting=setting)
    took = time.time() - asked
    if facts.version < _FIRST_VERSION:
        yield fail(subject, f"version {facts.version_words}", "presend needs Redis 6.2 or newer, or Valkey")
    else:
        yield ok(subject, f"version {facts.version_words}")
    yield clock(f"{subject}, clock", facts.at - asked - took / 2)
