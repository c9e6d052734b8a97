"""The day's budget: how many numbers may be bought until midnight, of which a share is kept for recharges.

Numbers are taken from the budget in the transaction that claims them, and what was not billed is given
back in the one that stores the answers, so the count is exact whoever crashes when.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from worker.portability.requests import Lane


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be bought a day."""

    # numbers; 0: no bound
    daily: int = 0
    # share that only recharges (and direct callers) may use, 0 to 1
    reserve: float = 0.0
    # IANA name of the zone whose midnight ends the day
    timezone: str = "Asia/Shanghai"

    def limit(self, lane: Lane) -> int:
        """How many numbers may have been bought when this lane buys its last."""
        return int(self.daily * (1 - self.reserve)) if lane is Lane.SMS else self.daily

    @property
    def kept_for_recharges(self) -> int:
        """How many numbers of the day an sms may not take."""
        return self.daily - self.limit(Lane.SMS)


# The day's row, made by the day's first call and locked until the transaction ends.
_TODAY = text("""
    INSERT INTO budget_day AS b (day, taken, changed_at)
    VALUES ((now() AT TIME ZONE :timezone)::date, 0, now())
    ON CONFLICT (day) DO UPDATE SET taken = b.taken RETURNING day, taken
""")

_TAKE = text("UPDATE budget_day SET taken = taken + :granted, changed_at = now() WHERE day = :day")

_NOTE = text("""
    UPDATE lookup_call SET reserved = :granted, budget_day = :day WHERE id = CAST(:call_id AS uuid)
""")

# A call gives back once: its reservation is gone after that.
_GIVE_BACK = text("""
    WITH call AS (
        SELECT id, reserved, budget_day FROM lookup_call
        WHERE id = CAST(:call_id AS uuid) AND reserved IS NOT NULL FOR UPDATE
    ), noted AS (
        UPDATE lookup_call c SET reserved = NULL FROM call WHERE c.id = call.id
    )
    UPDATE budget_day b SET taken = b.taken - call.reserved + :spent FROM call WHERE b.day = call.budget_day
""")

_DAY = text("""
    SELECT coalesce(b.taken, 0), (t.day + 1)::timestamp AT TIME ZONE :timezone, b.changed_at
    FROM (SELECT (now() AT TIME ZONE :timezone)::date AS day) t LEFT JOIN budget_day b USING (day)
""")

_SPENT = text("""
    SELECT changed_at FROM budget_day WHERE day = (now() AT TIME ZONE :timezone)::date AND taken >= :limit
""")


@dataclass(frozen=True, slots=True)
class BudgetDay:
    """What today's budget has left."""

    # numbers bought or being bought today
    taken: int
    # the midnight of the budget's zone
    ends_at: datetime
    # when numbers were last taken; None: none were
    changed_at: datetime | None = None


def today(connection: Connection, budget: Budget) -> BudgetDay:
    """Return what was taken from today's budget, and when the day ends."""
    return BudgetDay(*connection.execute(_DAY, {"timezone": budget.timezone}).one())


def take(connection: Connection, budget: Budget, lane: Lane, call_id: str, wanted: int) -> int:
    """Take up to ``wanted`` numbers from today's budget for a call; return how many it granted."""
    day, taken = connection.execute(_TODAY, {"timezone": budget.timezone}).one()
    granted = max(0, min(wanted, budget.limit(lane) - int(taken)))
    if granted:
        connection.execute(_TAKE, {"granted": granted, "day": day})
        connection.execute(_NOTE, {"granted": granted, "day": day, "call_id": call_id})
    return granted


def settle(connection: Connection, call_id: str, spent: int) -> None:
    """Say that of what a call took only ``spent`` numbers were, or may have been, billed."""
    connection.execute(_GIVE_BACK, {"call_id": call_id, "spent": spent})


def spent_since(connection: Connection, budget: Budget, lane: Lane) -> datetime | None:
    """Return since when this lane may buy nothing more today; None while it may."""
    if not budget.daily:
        return None
    found = connection.execute(_SPENT, {"timezone": budget.timezone, "limit": budget.limit(lane)})
    moment: datetime | None = found.scalar_one_or_none()
    return moment
