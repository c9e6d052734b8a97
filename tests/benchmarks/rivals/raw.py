"""The floor: ``python -m tests.benchmarks.rivals.raw BROKER_URL MESSAGES`` takes and acknowledges, no more.

One process, each message acknowledged alone; prints messages a second between the first and the last tenth.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from kombu import Connection, Consumer, Queue

_PREFETCH = 2000


def main(broker_url: str, messages: int) -> None:
    """Drain the queue ``sms``."""
    taken, began, ended = 0, 0.0, 0.0

    def take(message: Any) -> None:
        nonlocal taken, began, ended
        message.ack()
        taken += 1
        if taken == messages // 10:
            began = time.perf_counter()
        elif taken == messages - messages // 10:
            ended = time.perf_counter()

    with Connection(broker_url) as connection, connection.channel() as channel:
        queue = Queue("sms", no_declare=True)
        with Consumer(channel, [queue], on_message=take, prefetch_count=_PREFETCH, auto_declare=False):
            while taken < messages:
                connection.drain_events(timeout=30)
    print(f"rate {0.8 * messages / (ended - began):.0f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
