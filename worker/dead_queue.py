"""``presend.dead``: where the broker puts a message whose consumers died too often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kombu import Connection

from worker.deliveries import Delivery, read_message, task_id_of, unreadable_letter
from worker.errors import Rejected
from worker.intake import Intake
from worker.portability.requests import Lane, RequestKey
from worker.queues import TASKS, dead_queue
from worker.storage.dead_letters import DeadLetter

_AT_ONCE = 200

GIVEN_UP = (
    "the broker gave it up: too many times the worker that held it died or lost its connection; "
    "replay it alone (presend dead replay) and watch that worker's log"
)


def messages(broker_url: str) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Yield each message that lies there now, with the function that acknowledges it."""
    connection: Any
    with Connection(broker_url, connect_timeout=5) as connection, connection.channel() as channel:
        queue = dead_queue()(channel)
        queue.declare()
        for _ in range(_AT_ONCE):
            message = queue.get(no_ack=False, accept=[])
            if message is None:
                return
            yield message, message.ack


def items(message: Any, intake: Mapping[Lane, Intake]) -> list[tuple[RequestKey | None, DeadLetter]]:
    """Return a message's items: the key of each that can be read, and the dead letter it would become."""
    now = datetime.now(UTC)
    whole = unreadable_letter(message, reason=GIVEN_UP, received_at=now)
    task = TASKS.get(str(message.headers.get("task")))
    if task is None:
        return [(None, whole)]
    delivery = Delivery(
        message,
        task_id_of(message),
        str(message.headers["task"]),
        task.lane,
        task.many,
        {},
        now,
    )
    try:
        arguments = read_message(message).arguments
        reader = intake[task.lane]
        taken = reader.take_many(arguments, now=now) if task.many else [reader.take_one(arguments, now=now)]
    except Rejected:
        return [(None, whole)]
    return [
        (item.request.key if item.request else None, delivery.letter(index, item.arguments, GIVEN_UP))
        for index, item in enumerate(taken)
    ]
