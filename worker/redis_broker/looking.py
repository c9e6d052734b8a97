"""Looking into what waits, without taking it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from worker.portability.mentions import Mentions
from worker.redis_broker.scripts import HELD


def waiting(broker_url: str, queues: Sequence[str], mentions: Mentions) -> dict[str, int]:
    """Return how many messages that mention a number wait in each queue, or are not settled."""
    with redis.Redis.from_url(broker_url, socket_timeout=5) as client:
        found = {}
        for queue in queues:
            elements: Any = client.lrange(queue, 0, -1)
            found[queue] = sum(mentions.in_body(element) for element in elements)
        found["handed out"] = sum(
            mentions.in_body(value)
            for key in client.scan_iter(f"{HELD}*")
            for _, value in client.hscan_iter(key)
        )
    return {place: number for place, number in found.items() if number}
