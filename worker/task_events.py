"""Celery's task events of a message, which Flower and ``celery events`` show; numbers masked."""

from __future__ import annotations

import time
from typing import Any, Protocol

from worker.deliveries import Delivery
from worker.portability.msisdn import mask_all


class HasDispatcher(Protocol):
    """Celery's consumer: another dispatcher after each reconnect, none while no events are sent."""

    event_dispatcher: Any


class TaskEvents:
    """Tells what becomes of a message as Celery tells it of a task. Used by the consumer's thread alone."""

    def __init__(self, consumer: HasDispatcher) -> None:
        self._consumer = consumer

    def received(self, delivery: Delivery) -> None:
        """A message has come."""
        self._send(
            "task-received",
            delivery,
            name=mask_all(delivery.name),
            args="()",
            kwargs=delivery.masked_arguments(),
            root_id=None,
            parent_id=None,
            retries=0,
            eta=None,
            expires=None,
        )

    def started(self, delivery: Delivery) -> None:
        """A batch has taken it."""
        self._send("task-started", delivery)

    def ended(self, delivery: Delivery) -> None:
        """It is settled: what was decided, or why it was rejected."""
        if delivery.reason is None:
            runtime = 0.0 if delivery.started is None else time.monotonic() - delivery.started
            self._send("task-succeeded", delivery, result=delivery.summary(), runtime=runtime)
        else:
            exception = f"Rejected({mask_all(delivery.reason)!r})"
            self._send("task-failed", delivery, exception=exception, traceback="")

    def _send(self, event: str, delivery: Delivery, **fields: Any) -> None:
        dispatcher = self._consumer.event_dispatcher
        if dispatcher and dispatcher.enabled:
            dispatcher.send(event, uuid=mask_all(delivery.id), **fields)
