"""What keeps a lane from taking messages. Each cause is a query; :mod:`worker.bootstrap` lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from worker.portability.requests import Lane
from worker.storage import budget, gate, lane_pauses
from worker.storage.budget import Budget


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a lane takes no messages now."""

    lane: Lane
    # gate_closed, paused, budget_spent
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


def budget_spent(connection: Connection, *, daily: Budget) -> list[Stop]:
    """Once sms has used its part of the day's budget it waits in its queue for the next day."""
    spent_at = budget.spent_since(connection, daily, Lane.SMS)
    if spent_at is None:
        return []
    reason = (
        f"{daily.limit(Lane.SMS)} of {daily.daily} numbers were bought today, the rest is kept for "
        "recharges: raise PRESEND_DAILY_BUDGET and restart, or wait for midnight"
    )
    return [Stop(Lane.SMS, "budget_spent", spent_at, "presend", reason)]
