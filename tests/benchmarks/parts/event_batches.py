"""Events a second into a subscriber's queue, by the number of events a message holds.

Batches of 1000 of the service's own events, of three types, go through the service's publisher in several
threads, as a worker's slots do, to a bound quorum queue that nobody reads. Sizes take turns; what the queue
holds at the end must be what was sent.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from tests import services
from tests.benchmarks.ground import Ground
from tests.services import connect_amqp
from worker.portability import events
from worker.portability.events import Event
from worker.portability.records import AnsweredFrom, CheckedRequest, Status
from worker.portability.requests import Lane, RequestKey
from worker.publisher import EVENTS
from worker.publisher.amqp import AmqpPublisher
from worker.publisher.messages import bodies_in
from worker.storage.ids import new_id

SIZES = (1, 10, 100, 1000)
_EVENTS, _AT_ONCE, _THREADS = 100_000, 1000, 4
_QUEUE = "bench.tap"
_DECISIONS = ("resend", "reroute", "undeliverable")


def run(ground: Ground) -> None:
    """Over RabbitMQ, events made beforehand."""
    found = services.Services()
    rates: dict[int, list[float]] = defaultdict(list)
    batches = [_batch(number) for number in range(max(_THREADS, ground.sized(_EVENTS // _AT_ONCE)))]
    try:
        with found.rabbitmq().held() as broker_url:
            for turn in range(ground.rounds):
                for size in SIZES:
                    rates[size].append(_publish(broker_url, batches, size))
                    print(f"  {turn + 1}  {size:5} a message {rates[size][-1]:9.0f}/s", flush=True)
            figures: dict[str, Any] = {
                "events": len(batches) * _AT_ONCE,
                "events_per_second": {
                    size: {"runs": each, "median": round(statistics.median(each))}
                    for size, each in rates.items()
                },
                "over_single": {
                    size: _median_ratio(each, rates[1]) for size, each in rates.items() if size > 1
                },
            }
            print(f"event batches: {figures['over_single']} times the rate of single events")
            ground.write(figures, broker_url)
    finally:
        found.close()


def _publish(broker_url: str, batches: list[list[Event]], size: int) -> float:
    with closing(connect_amqp(broker_url)) as connection:
        channel = connection.channel()
        channel.exchange_declare(EVENTS, "topic", durable=True, auto_delete=False)
        channel.queue_delete(_QUEUE)
        channel.queue_declare(_QUEUE, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(_QUEUE, EVENTS, "#")
        publisher = AmqpPublisher(broker_url, event_batch=size)
        with closing(publisher), ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(publisher.publish, batches[:_THREADS]))  # the connections
            begin = time.perf_counter()
            list(threads.map(publisher.publish, batches))
            seconds = time.perf_counter() - begin
        assert not publisher.unrouted
        sent = (len(batches) + _THREADS) * _AT_ONCE
        assert (came := _events_in(channel)) == sent, f"{came} of {sent} events came"
    return round(len(batches) * _AT_ONCE / seconds)


def _events_in(channel: Any) -> int:
    """Take out what the queue holds, and count the events."""
    left = channel.queue_declare(_QUEUE, passive=True).message_count
    events_taken = 0

    def take(message: Any) -> None:
        nonlocal left, events_taken
        left -= 1
        events_taken += len(bodies_in(bytes(memoryview(message.body))))

    consumer = channel.basic_consume(_QUEUE, no_ack=True, callback=take)
    while left:
        channel.connection.drain_events(timeout=30)
    channel.basic_cancel(consumer)
    channel.queue_delete(_QUEUE)
    return events_taken


def _median_ratio(rates: list[float], singles: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(rates, singles, strict=True)), 2)


def _batch(number: int) -> list[Event]:
    now, batch_id = datetime.now(UTC), new_id()
    return [
        events.of_check(
            CheckedRequest(
                source="", lane=Lane.SMS, reference=f"m{number}-{index}", attempt=1,
                msisdn=str(13_900_000_000 + number * _AT_ONCE + index), asked_operator="CMCC",
                failure_code="MK:0001", status=Status.PORTED, range_holder="CMCC", current_operator="CTCC",
                target_operator=None, area="湖北-宜昌", observed_at=now, decision=_DECISIONS[index % 17 % 3],
                reason="other_operator", answered_from=AnsweredFrom.LIVE, batch_id=batch_id,
                call_id=batch_id, event_id=events.event_id(RequestKey("", Lane.SMS, f"m{number}-{index}", 1)),
                received_at=now, decided_at=now,
            )
        )
        for index in range(_AT_ONCE)
    ]  # fmt: skip
