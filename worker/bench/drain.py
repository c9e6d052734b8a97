"""How many numbers a second leave a full queue decided, stored and told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import psycopg

from worker.carrier.protocol import MAX_BATCH
from worker.producing.producer import Producer

_LOOK_SECONDS = 0.2
_STILL_SECONDS = 30.0
_FIRST_NUMBER = 13_900_000_000

# Batches are decided a thousand at a time: the first and the last tenth are the start's and the end's.
_RATE = """
    SELECT 0.8 * count(*) / nullif(extract(epoch FROM
        percentile_disc(0.9) WITHIN GROUP (ORDER BY decided_at)
        - percentile_disc(0.1) WITHIN GROUP (ORDER BY decided_at)), 0)
    FROM check_request WHERE lane = 'sms' AND source = %s
"""
_DECIDED = "SELECT count(*) FROM check_request WHERE lane = 'sms' AND source = %s"


def fill(broker_url: str, source: str, numbers: int, *, many: bool, first: int) -> None:
    """Queue so many distinct numbers of lane sms, one a message or a thousand."""
    items = _items(source, numbers, first)
    with Producer(broker_url) as producer:
        if not many:
            for item in items:
                producer.send("sms.recheck", item)
            return
        while batch := list(islice(items, MAX_BATCH)):
            producer.send("sms.recheck_many", {"items": batch})


def rate(database_url: str, source: str, numbers: int, *, check: Callable[[], None]) -> float:
    """Wait until all are decided; return numbers a second between the first and the last tenth.

    ``check`` raises where a process has ended. ``TimeoutError`` if nothing happens for half a minute.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:

        def asked(query: str) -> Any:
            return (connection.execute(query, (source,)).fetchone() or (None,))[0]

        seen, changed = 0, time.monotonic()
        while (now := int(asked(_DECIDED))) < numbers:
            check()
            if now > seen:
                seen, changed = now, time.monotonic()
            elif time.monotonic() - changed > _STILL_SECONDS:
                raise TimeoutError(f"{numbers - now} of {numbers} numbers are not decided, and nothing moves")
            time.sleep(_LOOK_SECONDS)
        return float(asked(_RATE) or 0.0)


def _items(source: str, numbers: int, first: int) -> Iterator[dict[str, Any]]:
    for number in range(first, first + numbers):
        yield {
            "message_id": f"{source}-{number}",
            "mobile": str(_FIRST_NUMBER + number),
            "operator": "CMCC",
            "failure_code": "MK:0001",
            "source": source,
        }
