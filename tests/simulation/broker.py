"""RabbitMQ in memory: queues that give back what was not acknowledged, and an exchange that may confirm."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.faults import Faults
from tests.simulation.invariants import Invariants, Item
from tests.simulation.schedule import Schedule
from worker.errors import NotConfirmed
from worker.portability.events import Event
from worker.queues import TASKS


@dataclass(slots=True, eq=False)
class Connection:
    """A consumer's connection, and what was delivered on it and not acknowledged."""

    alive: bool = True
    unacknowledged: list[Message] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Message:
    """A message, as kombu hands it over."""

    task: str
    task_id: str
    body: bytes
    items: Sequence[Item]
    broker: Broker
    connection: Connection | None = None
    content_type: str = "application/json"

    @property
    def lane(self) -> str:
        return TASKS[self.task].lane.value

    @property
    def headers(self) -> Mapping[str, Any]:
        return {"id": self.task_id, "task": self.task}

    @property
    def delivery_info(self) -> Mapping[str, Any]:
        return {"routing_key": self.lane}

    def ack_log_error(self, _log: Any, _errors: Any) -> None:
        """Acknowledge; on a dead connection nothing happens, as in earnest."""
        self.broker.acknowledge(self)

    def copy(self) -> Message:
        return Message(self.task, self.task_id, self.body, self.items, self.broker)


def body_of(kwargs: Mapping[str, Any]) -> bytes:
    """A message's body, in Celery's protocol 2."""
    return json.dumps([[], kwargs, {}]).encode()


class Broker:
    """The work queues."""

    def __init__(self, schedule: Schedule, faults: Faults, invariants: Invariants) -> None:
        self._schedule = schedule
        self._faults = faults
        self._invariants = invariants
        self.ready: dict[str, deque[Message]] = {"recharge": deque(), "sms": deque()}

    def send(self, task: str, kwargs: Mapping[str, Any], items: Sequence[Item], task_id: str) -> None:
        message = Message(task, task_id, body_of(kwargs), items, self)
        self.ready[message.lane].append(message)

    def deliver(self, lane: str, connection: Connection) -> Message:
        message = self.ready[lane].popleft().copy()
        message.connection = connection
        connection.unacknowledged.append(message)
        for item in message.items:
            item.deliveries += 1
        return message

    def acknowledge(self, message: Message) -> None:
        connection = message.connection
        assert connection is not None
        self._invariants.acknowledged(message.items)
        if not connection.alive:
            return
        if message not in connection.unacknowledged:
            self._invariants.violated(
                "a message is acknowledged twice on one connection: 406, the worker exits"
            )
        if self._faults.strike("ack lost"):
            self.cut(connection)
            return
        connection.unacknowledged.remove(message)
        self._schedule.note(f"    acknowledged {message.task_id}")

    def cut(self, connection: Connection) -> None:
        """End a connection: what it held is ready again, before the others."""
        connection.alive = False
        for message in reversed(connection.unacknowledged):
            self.ready[message.lane].appendleft(message.copy())
        connection.unacknowledged = []


class SimulatedPublisher:
    """``Publisher`` for one process."""

    def __init__(self, schedule: Schedule, faults: Faults, invariants: Invariants) -> None:
        self._schedule = schedule
        self._faults = faults
        self._invariants = invariants
        self.broker_away = False

    def publish(self, events: Sequence[Event]) -> None:
        if not events:
            return
        invariants, schedule = self._invariants, self._schedule
        schedule.turn(f"publishes {len(events)}")
        refused = self._faults.strike("not confirmed")
        reached = schedule.choices.below(len(events) + 1) if refused else len(events)
        for index, event in enumerate(events[:reached]):
            invariants.event_sent(event)
            if self._faults.strike("event sent twice"):
                invariants.event_sent(event)
            if index == reached // 2:
                schedule.turn("waits for confirms")
        if refused:
            raise NotConfirmed("not every event was confirmed")
        invariants.confirmed.update(event.id for event in events)

    def close(self) -> None: ...
