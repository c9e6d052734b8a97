"""The queues, as worker and producers must both declare them.

A quorum queue that dead-letters at least once and refuses rather than drops. On Redis a queue is a list
of its name; arguments mean nothing there.
"""

from __future__ import annotations

from typing import NamedTuple

from kombu import Exchange, Queue

from worker.carrier.protocol import MAX_BATCH
from worker.portability.requests import Lane

DEAD_QUEUE = "presend.dead"
"""Where the broker puts a message that killed its consumers too often; upkeep empties it."""

DELIVERY_LIMIT = 100
"""How often that is."""

_MOST_PREFETCH = 65_535
"""What AMQP has room for, messages of one item; with 44 slots or more not every batch is full at once."""


class QueueTask(NamedTuple):
    """What a message of this task holds."""

    lane: Lane
    # a list of items, or one
    many: bool


TASKS = {
    "recharge.precheck": QueueTask(Lane.RECHARGE, many=False),
    "recharge.precheck_many": QueueTask(Lane.RECHARGE, many=True),
    "sms.recheck": QueueTask(Lane.SMS, many=False),
    "sms.recheck_many": QueueTask(Lane.SMS, many=True),
}
"""The tasks by name; ``tasks/`` defines them."""

QUEUE_ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD_QUEUE,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}

_DEFAULT_EXCHANGE = Exchange("")


def prefetch(slots: int) -> int:
    """Return how many items a process holds: a batch for each that runs, and one that gathers."""
    wanted = MAX_BATCH * (slots + slots // 2 + 1)  # ``worker.batching.batches_at_once``
    return min(wanted, _MOST_PREFETCH)


def lane_queues(*, redis: bool) -> list[Queue]:
    """Return the queues ``recharge`` and ``sms``, bound to the default exchange alone."""
    return [
        Queue(
            lane.value,
            _DEFAULT_EXCHANGE,
            routing_key=lane.value,
            durable=True,
            queue_arguments=None if redis else QUEUE_ARGUMENTS,
        )
        for lane in (Lane.RECHARGE, Lane.SMS)
    ]


def dead_queue() -> Queue:
    """Return the queue ``presend.dead``."""
    return Queue(
        DEAD_QUEUE,
        _DEFAULT_EXCHANGE,
        routing_key=DEAD_QUEUE,
        durable=True,
        queue_arguments={"x-queue-type": "quorum"},
    )
