"""Celery's task events of a message, which Flower and ``celery events`` show; numbers masked.

Celery builds and writes an event in 60 us, three times what presend itself needs for a message. Here they are
gathered and written a few hundred at a time, in the form that Celery has for that.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import msgspec
from celery.utils.time import utcoffset

from worker import logs
from worker.deliveries import Delivery
from worker.portability.msisdn import mask_all

log = logs.get(__name__)

_AT_ONCE = 500
_MOST_KEPT = 10_000
"""Of what the broker did not take; older ones are forgotten."""


class HasDispatcher(Protocol):
    """Celery's consumer."""

    # another one after each reconnect, none while no events are sent
    event_dispatcher: Any
    # its thread's event loop
    hub: Any


class TaskEvents:
    """Tells what becomes of a message as Celery tells it of a task. Used by the consumer's thread alone."""

    def __init__(self, consumer: HasDispatcher) -> None:
        self._consumer = consumer
        self._gathered: list[dict[str, Any]] = []

    def received(self, delivery: Delivery) -> None:
        """A message has come."""
        if self._wanted:
            self._gather(
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
        if self._wanted:
            self._gather("task-started", delivery)

    def ended(self, delivery: Delivery) -> None:
        """It is settled: what was decided, or why it was rejected."""
        if not self._wanted:
            return
        if delivery.reason is None:
            runtime = 0.0 if delivery.started is None else time.monotonic() - delivery.started
            self._gather("task-succeeded", delivery, result=delivery.summary(), runtime=runtime)
        else:
            exception = f"Rejected({mask_all(delivery.reason)!r})"
            self._gather("task-failed", delivery, exception=exception, traceback="")

    def flush(self) -> None:
        """Write what was gathered; what the broker does not take is kept for the next time."""
        dispatcher = self._consumer.event_dispatcher
        events, self._gathered = self._gathered, []
        if not events or not self._wanted:
            return
        offset = utcoffset()
        for event in events:
            event |= {"hostname": dispatcher.hostname, "pid": dispatcher.pid, "utcoffset": offset}
        try:
            with dispatcher.mutex:
                dispatcher.producer.publish(
                    msgspec.json.encode(events),
                    routing_key="task.multi",
                    exchange=dispatcher.exchange.name,
                    declare=[dispatcher.exchange],
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers=dispatcher.headers,
                    delivery_mode=dispatcher.delivery_mode,
                )
        except Exception as exc:  # noqa: BLE001 - no decision depends on them
            log.debug("task_events_not_sent", events=len(events), error=str(exc))
            self._gathered = events[-_MOST_KEPT:]

    @property
    def _wanted(self) -> bool:
        dispatcher = self._consumer.event_dispatcher
        return bool(
            dispatcher and dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups)
        )

    def _gather(self, event: str, delivery: Delivery, **fields: Any) -> None:
        fields["type"] = event
        fields["uuid"] = mask_all(delivery.id)
        fields["timestamp"] = time.time()
        fields["clock"] = self._consumer.event_dispatcher.clock.forward()
        self._gathered.append(fields)
        if len(self._gathered) == 1:
            self._consumer.hub.call_later(0, self.flush)
        elif len(self._gathered) % _AT_ONCE == 0:
            self.flush()
