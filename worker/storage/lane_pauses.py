"""Lanes paused by hand: for every worker, also those started later, until somebody resumes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from worker.portability.requests import Lane
from worker.storage import operator_actions


@dataclass(frozen=True, slots=True)
class PausedLane:
    """Why, since when and by whom a lane takes no messages."""

    lane: Lane
    paused_at: datetime
    paused_by: str
    reason: str


_READ = text("SELECT lane, paused_at, paused_by, reason FROM lane_pause ORDER BY lane")
_PAUSE = text("""
    INSERT INTO lane_pause (lane, paused_at, paused_by, reason) VALUES (:lane, now(), :by, :reason)
    ON CONFLICT (lane) DO UPDATE SET lane = excluded.lane
    RETURNING paused_at, paused_by, lane_pause.reason, xmax = 0
""")
_RESUME = text("DELETE FROM lane_pause WHERE lane = :lane")


def read(connection: Connection) -> list[PausedLane]:
    """Return the paused lanes."""
    return [PausedLane(Lane(lane), *rest) for lane, *rest in connection.execute(_READ)]


def pause(connection: Connection, lane: Lane, *, by: str, reason: str) -> PausedLane:
    """Pause a lane; return the pause that stands, which is the first one. Run it in a transaction.

    Every worker gets the command; the first of them pauses, and that alone is in the history.
    """
    *standing, newly = connection.execute(_PAUSE, {"lane": lane, "by": by, "reason": reason}).one()
    if newly:
        operator_actions.add(connection, who=by, action="pause", subject=f"lane {lane}", reason=reason)
    return PausedLane(lane, *standing)


def resume(connection: Connection, lane: Lane, *, by: str, reason: str) -> bool:
    """Let a lane go on; return whether it was paused. Run it in a transaction."""
    newly = connection.execute(_RESUME, {"lane": lane}).rowcount > 0
    if newly:
        operator_actions.add(connection, who=by, action="resume", subject=f"lane {lane}", reason=reason)
    return newly
