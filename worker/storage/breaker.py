"""The breaker: what every worker of a lane knows about a provider that fails, and who may try it next.

While calls succeed there is no row. A lost call makes one: the lane pauses, longer each time, and after
two in a row it asks for one number only, one worker at a time, until an answer comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from worker.portability.requests import Lane
from worker.storage.statements import Statement

PROBING_AFTER = 2
"""Lost calls in a row after which a lane asks for one number only."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """A lane whose latest call was lost."""

    lost_in_a_row: int
    # pauses made since the last answer
    pauses: int
    # until the next call may start; 0 where it may now
    pause_seconds: float

    @property
    def probing(self) -> bool:
        """Whether the lane may ask for one number only."""
        return self.lost_in_a_row >= PROBING_AFTER


@dataclass(frozen=True, slots=True)
class FailingLane:
    """A lane that a provider fails."""

    lane: Lane
    lost_in_a_row: int
    next_call_at: datetime


_FAILING = text("""
    SELECT lane, max(lost_in_a_row), max(next_call_at) FROM lane_breaker
    WHERE lost_in_a_row >= :probing GROUP BY lane ORDER BY lane
""")
_READ = text("""
    SELECT lost_in_a_row, pauses,
           GREATEST(0, EXTRACT(EPOCH FROM GREATEST(next_call_at, probing_until) - now()))::float8
    FROM lane_breaker WHERE account = :account AND lane = :lane
""")
SET = "SELECT FROM lane_breaker WHERE account = :account AND lane = :lane"
"""As a subquery: whether the lane's latest call was lost."""

# One probe at a time: whoever updates the row has it, until it ends or its time is up.
_PROBE = text("""
    UPDATE lane_breaker SET probing_until = now() + make_interval(secs => :hold_seconds)
    WHERE account = :account AND lane = :lane AND next_call_at <= now() AND probing_until <= now()
    RETURNING probing_until
""")

# Calls that were under way together and fail together make one pause, not one each. One that began before
# another's probe and fails during it does not end that probe.
_LOST = text("""
    INSERT INTO lane_breaker AS b (account, lane, lost_in_a_row, pauses, next_call_at, probing_until)
    VALUES (:account, :lane, 1, 1, now() + make_interval(secs => :first_seconds * :jitter), now())
    ON CONFLICT (account, lane) DO UPDATE SET
        lost_in_a_row = b.lost_in_a_row + 1,
        pauses = CASE WHEN b.next_call_at <= now() THEN b.pauses + 1 ELSE b.pauses END,
        next_call_at = CASE WHEN b.next_call_at <= now() THEN now() + make_interval(
            secs => :jitter * LEAST(:longest_seconds, :first_seconds * power(2, LEAST(b.pauses, 20)))
        ) ELSE b.next_call_at END,
        probing_until = CASE
            WHEN b.probing_until = CAST(:probe AS timestamptz) THEN now() ELSE b.probing_until
        END
""")

_ANSWERED = text("DELETE FROM lane_breaker WHERE account = :account AND lane = :lane")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 30.0


def reading(account: str, lane: Lane) -> Statement[Breaker | None]:
    """Read the lane's breaker; None while calls succeed."""
    values = {"account": account, "lane": lane.value}
    return Statement(_READ, values, lambda rows: Breaker(*rows[0]) if rows else None)


def failing(connection: Connection) -> list[FailingLane]:
    """Return the lanes that ask for one number only, of whatever account."""
    rows = connection.execute(_FAILING, {"probing": PROBING_AFTER})
    return [FailingLane(Lane(lane), *rest) for lane, *rest in rows]


def probe(connection: Connection, account: str, lane: Lane, *, hold_seconds: float) -> datetime | None:
    """Return until when this worker may make the one call that tries the provider; None: it may not."""
    taken = connection.execute(_PROBE, {"account": account, "lane": lane.value, "hold_seconds": hold_seconds})
    until: datetime | None = taken.scalar_one_or_none()
    return until


def lost(
    connection: Connection, account: str, lane: Lane, *, jitter: float, probe: datetime | None = None
) -> None:
    """Note a lost call; ``jitter`` (0.5 to 1) spreads the pause, which doubles from 0.2 s to 30 s.

    ``probe`` is what :func:`probe` said, where it was the call that tried the provider.
    """
    connection.execute(
        _LOST,
        {
            "account": account,
            "lane": lane.value,
            "jitter": jitter,
            "probe": probe,
            "first_seconds": FIRST_PAUSE_SECONDS,
            "longest_seconds": LONGEST_PAUSE_SECONDS,
        },
    )


def answered(connection: Connection, account: str, lane: Lane) -> None:
    """Note that the provider answers."""
    connection.execute(_ANSWERED, {"account": account, "lane": lane.value})
