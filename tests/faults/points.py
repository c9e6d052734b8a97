"""The named crash points: where on a message's way a process can be killed, and how each is reached."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.faults.patching import (
    CLAIM,
    LEDGER,
    LETTER,
    MARK,
    after,
    around_commit,
    around_statement,
    before,
    wrap,
)

_CARRIER = ("worker.carrier.client:HttpCarrier.lookup", "worker.carrier.client:HttpCarrier.lookup_batch")
_PUBLISH = {
    "rabbitmq": "worker.publisher.amqp:AmqpPublisher.publish",
    "redis": "worker.publisher.stream:StreamPublisher.publish",
}
_BASIC_ACK = b"\x00\x3c\x00\x50"
_MID_CALL_SECONDS = 0.04
"""Less than the shortest answer takes in these tests."""


class Trap:
    """Kills this process, as ``kill -9`` would, at the n-th hit."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._lock = threading.Lock()

    def hit(self, *_: Any) -> None:
        if self.due():
            os.kill(os.getpid(), signal.SIGKILL)

    def due(self) -> bool:
        """Whether this was the n-th."""
        with self._lock:
            self._left -= 1
            return self._left == 0


@dataclass(frozen=True)
class Point:
    """One crash point."""

    what: str
    arm: Callable[[Trap], None]
    # the kill comes at a random hit up to this one: points met once a message are met often
    latest: int
    only_on: str | None = None


def _mid_call(trap: Trap) -> None:
    def start() -> None:
        if trap.due():
            threading.Timer(_MID_CALL_SECONDS, os.kill, (os.getpid(), signal.SIGKILL)).start()

    for seam in _CARRIER:
        before(seam, start)


def _commit_sent(trap: Trap) -> None:
    def send(connection: Any) -> None:
        if trap.due():
            connection.pgconn.send_query(b"COMMIT")
            while connection.pgconn.flush():
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)

    around_commit(LEDGER, first=send)


def _some_published(trap: Trap) -> None:
    def wrapper(original: Callable[..., Any], transport: Any, data: bytes) -> Any:
        if b"presend.events" in data and trap.due():
            original(transport, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(transport, data)

    wrap("amqp.transport:_AbstractTransport.write", wrapper)


def _some_acknowledged(trap: Trap) -> None:
    """Frames of 21 octets, a batch's in one write."""

    def wrapper(original: Callable[..., Any], transport: Any, data: bytes) -> Any:
        if data[7:11] == _BASIC_ACK and trap.due():
            original(transport, data[: len(data) // 42 * 21])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(transport, data)

    wrap("amqp.transport:_AbstractTransport.write", wrapper)


def _publishing(trap: Trap, act: Callable[..., None]) -> None:
    for seam in _PUBLISH.values():
        act(seam, trap.hit)


def _draining(trap: Trap) -> None:
    """The batch that is n-th asks its own process to stop; the kill comes when it stops receiving."""

    def ask_to_stop() -> None:
        if trap.due():
            os.kill(os.getpid(), signal.SIGTERM)

    before("worker.pipeline:Pipeline.run_batch", ask_to_stop)
    before("worker.feed:Feed.close", lambda: os.kill(os.getpid(), signal.SIGKILL))


def _each_call(trap: Trap) -> None:
    for seam in _CARRIER:
        after(seam, trap.hit)


POINTS: dict[str, Point] = {
    "taken": Point(
        "a message received, not yet in its lane", lambda t: before("worker.feed:Feed.take", t.hit), 300
    ),
    "gathered": Point("a batch gathered", lambda t: before("worker.pipeline:Pipeline.run_batch", t.hit), 8),
    "claiming": Point("before the claim is committed", lambda t: around_statement(CLAIM, first=t.hit), 6),
    "claimed": Point("after the claim, before the call", lambda t: around_statement(CLAIM, then=t.hit), 6),
    "calling": Point("the call sent, not answered", _mid_call, 6),
    "answered": Point("the answer received, not stored", _each_call, 6),
    "storing": Point("ledger rows written, not committed", lambda t: around_statement(LEDGER, then=t.hit), 8),
    "committing": Point("COMMIT sent, its reply unread", _commit_sent, 8),
    "committed": Point("right after COMMIT", lambda t: around_commit(LEDGER, then=t.hit), 8),
    "publishing": Point("before the events", lambda t: _publishing(t, before), 8),
    "some published": Point("after half of the events", _some_published, 8, only_on="rabbitmq"),
    "confirmed": Point("events confirmed, batch not marked", lambda t: _publishing(t, after), 8),
    "marked": Point("batch marked, not acknowledged", lambda t: around_statement(MARK, then=t.hit), 8),
    "results": Point(
        "results written, before the events or after",
        lambda t: after("worker.results:ResultWriter.write", t.hit),
        8,
    ),
    "some acknowledged": Point(
        "after half of the acknowledgements", _some_acknowledged, 8, only_on="rabbitmq"
    ),
    "one acknowledged": Point(
        "after k of n acknowledgements",
        lambda t: after("kombu.message:Message.ack_log_error", t.hit),
        60,
        only_on="redis",
    ),
    "parked": Point(
        "a dead letter committed, not acknowledged", lambda t: around_commit(LETTER, then=t.hit), 2
    ),
    "draining": Point("asked to stop, batches in flight", _draining, 4),
}


def on(broker: str) -> list[str]:
    """The points there are on a broker."""
    return [name for name, point in POINTS.items() if point.only_on in {None, broker}]
