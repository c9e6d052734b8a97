"""A subscriber in its own process: ``python -m tests.faults.collector BROKER_URL LOG``.

Writes a JSON line for every event that comes, repeated ones included, before it acknowledges it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import amqp
import redis

from tests.acceptance.events import events_in
from tests.faults.evidence import seen
from tests.services import connect_amqp

EXCHANGE = "presend.events"
QUEUE = "faults.collector"
_ACK_EACH = 200


class EventLog:
    """One line an event, whether it came alone or in a batch."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def write(self, body: bytes) -> None:
        lines = [asdict(seen(event)) | {"time": time.time()} for event in events_in(body)]
        os.write(self._file, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def bind(broker_url: str) -> None:
    """Subscribe as documented: a durable quorum queue on the topic exchange; Redis keeps its stream."""
    if broker_url.startswith("redis"):
        return
    connection = connect_amqp(broker_url)
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
    channel.queue_declare(QUEUE, durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(QUEUE, EXCHANGE, "#")
    connection.close()


def from_queue(broker_url: str, log: EventLog) -> None:
    """Read the queue until its connection breaks."""
    connection = connect_amqp(broker_url)
    channel = connection.channel()
    unacknowledged = 0

    def take(message: amqp.Message) -> None:
        nonlocal unacknowledged
        log.write(message.body.encode() if isinstance(message.body, str) else bytes(message.body))
        unacknowledged += 1
        if unacknowledged >= _ACK_EACH:
            channel.basic_ack(message.delivery_tag, multiple=True)
            unacknowledged = 0

    channel.basic_qos(0, 2 * _ACK_EACH, False)
    channel.basic_consume(QUEUE, callback=take)
    while True:
        try:
            connection.drain_events(timeout=0.2)
        except TimeoutError:
            if unacknowledged:
                channel.basic_ack(0, multiple=True)
                unacknowledged = 0


def from_stream(broker_url: str, log: EventLog, last: list[Any]) -> None:
    """Read the stream until its connection breaks; ``last`` keeps the place."""
    with redis.Redis.from_url(broker_url, socket_timeout=5) as client:
        while True:
            streams: Any = client.xread({EXCHANGE: last[0]}, count=1000, block=200)
            for _, entries in streams:
                for entry_id, fields in entries:
                    log.write(fields.get(b"events") or fields[b"event"])
                    last[0] = entry_id


def main() -> None:
    broker_url, log, last = sys.argv[1], EventLog(Path(sys.argv[2])), ["0"]
    bind(broker_url)
    print("collector ready", flush=True)
    while True:
        try:
            if broker_url.startswith("redis"):
                from_stream(broker_url, log, last)
            else:
                from_queue(broker_url, log)
        except (OSError, amqp.AMQPError, redis.RedisError):
            time.sleep(0.2)


if __name__ == "__main__":
    main()
