"""A producer in its own process.

    python -m tests.faults.sender BROKER_URL SEED FIRST MESSAGES PER_SECOND LOG

It sends the stream of a seed, from its message FIRST on, and logs the index of each message the broker has
confirmed, so the log says what presend has promised to settle. A message whose confirm did not come is sent
again, under the same key. MESSAGES 0 never ends by itself; PER_SECOND 0 is as fast as it goes.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import redis
from amqp.exceptions import AMQPError
from celery import Celery
from kombu.exceptions import OperationalError

from tests.acceptance.producer import producer
from tests.faults.traffic import Message, stream

_BROKEN = (OSError, AMQPError, OperationalError, redis.RedisError)
_LONGEST_BURST_SECONDS = 2.0


class Sender:
    """Sends messages one by one, each until it is confirmed."""

    def __init__(self, app: Celery, log: Path) -> None:
        self._app = app
        self._log = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        self._open = contextlib.ExitStack()
        self._producer: object | None = None

    def send(self, message: Message) -> None:
        """Return once the broker has confirmed the message, and that is logged."""
        while True:
            try:
                self._send(message)
            except _BROKEN:
                self._forget_connection()
                time.sleep(0.1)
            else:
                os.write(self._log, b"%d %.6f\n" % (message.index, time.time()))
                return

    def _send(self, message: Message) -> None:
        if self._producer is None:
            connection = self._open.enter_context(self._app.connection_for_write(connect_timeout=3))
            channel = self._open.enter_context(connection.channel())
            self._producer = self._app.amqp.Producer(channel)
        self._app.send_task(
            message.task,
            kwargs=message.arguments,
            task_id=f"m{message.index}",
            producer=self._producer,
            ignore_result=not message.wants_result,
            retry=False,
        )

    def _forget_connection(self) -> None:
        self._producer = None
        with contextlib.suppress(*_BROKEN, AttributeError):
            self._open.close()
        self._open = contextlib.ExitStack()


def paced(messages: Iterator[Message], per_second: float, chance: random.Random) -> Iterator[Message]:
    """Messages in bursts, at this rate on average."""
    if not per_second:
        yield from messages
        return
    due = time.monotonic()
    while burst := list(
        islice(messages, max(1, int(per_second * chance.uniform(0, _LONGEST_BURST_SECONDS))))
    ):
        yield from burst
        due += len(burst) / per_second
        time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    broker_url, seed, first, messages, per_second, log = sys.argv[1:7]
    sender = Sender(producer(broker_url, "disabled://"), Path(log))
    end = int(first) + int(messages) if int(messages) else None
    wanted = islice(stream(int(seed)), int(first), end)
    for message in paced(wanted, float(per_second), random.Random(int(seed))):
        sender.send(message)


if __name__ == "__main__":
    main()
