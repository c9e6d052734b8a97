"""What keeps a lane from taking messages. Each cause is a query; :mod:`worker.bootstrap` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from worker.portability.requests import Lane
from worker.storage import gate, lane_pauses


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a lane takes no messages now."""

    lane: Lane
    # gate_closed, paused
    cause: str
    since: datetime
    by: str
    reason: str


Cause = Callable[[Connection], list[Stop]]


def read(connection: Connection, causes: Iterable[Cause]) -> dict[Lane, Stop]:
    """Return the lanes that must not take messages; of several causes the first one listed speaks."""
    stops: dict[Lane, Stop] = {}
    for cause in causes:
        for stop in cause(connection):
            stops.setdefault(stop.lane, stop)
    return stops


def paused(connection: Connection) -> list[Stop]:
    """Lanes paused by hand."""
    return [
        Stop(pause.lane, "paused", pause.paused_at, pause.paused_by, pause.reason)
        for pause in lane_pauses.read(connection)
    ]


def gate_closed(connection: Connection, *, account: str) -> list[Stop]:
    """While the gate is closed sms waits in its queue. Recharge goes on: a shopper is told at once."""
    closed = gate.read(connection, account)
    if closed is None:
        return []
    return [Stop(Lane.SMS, "gate_closed", closed.closed_at, closed.closed_by, closed.reason)]
