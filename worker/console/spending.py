"""What was bought today, where that leads, and for how many days the provider's balance is enough.

Quarters of an hour that are over are read once and remembered; only the last ones are read again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine

from worker.carrier.protocol import Balance
from worker.portability.requests import Lane
from worker.storage import budget, engine, reports
from worker.storage.budget import Budget, BudgetDay
from worker.storage.reports import SPEND_SLOT, SpendSlot

_SETTLED_AFTER = timedelta(minutes=5)
"""A call ends, or is given up, long before."""
_FRESH = timedelta(seconds=3)
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Spend:
    """Spend as of a moment, in numbers billed."""

    at: datetime
    today: int
    by_lane: dict[Lane, int]
    calls_today: int
    # numbers of today whose answer was lost: they may have been billed
    unanswered_today: int
    last_hour: int
    last_24_hours: int
    ends_at: datetime
    # what the day comes to if it goes on as in the last hour
    forecast: int
    # by the budget's own count, numbers being bought now included; None: there is no bound
    budget: int | None
    taken: int

    @property
    def spent_at(self) -> datetime | None:
        """When the budget is used up, going on as in the last hour; None: not today."""
        if not self.budget or not self.last_hour:
            return None
        at = self.at + _HOUR * (max(0, self.budget - self.taken) / self.last_hour)
        return at if at < self.ends_at else None

    def days_left(self, balance: Balance | None) -> float | None:
        """How long a balance lasts, spent as in the last 24 hours; None where nobody can say."""
        if balance is None or not self.last_24_hours:
            return None
        return max(0, balance.balance) / self.last_24_hours


class Spending:
    """Adds up spend; thread-safe."""

    def __init__(
        self, database: Engine, daily: Budget, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._daily = daily
        self._now = now
        self._lock = threading.Lock()
        self._settled: list[SpendSlot] = []
        self._settled_until: datetime | None = None
        self._last: Spend | None = None

    def now(self) -> Spend:
        """Return the spend, at most three seconds old."""
        with self._lock:
            now = self._now()
            if self._last is None or now - self._last.at > _FRESH:
                self._last = engine.read(self._database, lambda to: self._add_up(to, now))
            return self._last

    def _add_up(self, connection: Connection, now: datetime) -> Spend:
        zone = ZoneInfo(self._daily.timezone)
        midnight = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
        begin = _slot(min(midnight, now - _DAY))
        open_from = _slot(now - _SETTLED_AFTER)
        since = max(begin, self._settled_until or begin)
        if since < open_from:
            self._settled = [slot for slot in self._settled if slot.begin >= begin]
            self._settled += reports.spend(connection, since=since, until=open_from)
            self._settled_until = open_from
        slots = [*self._settled, *reports.spend(connection, since=open_from, until=now)]
        hour = sum(slot.billed for slot in reports.spend(connection, since=now - _HOUR, until=now))
        day = budget.today(connection, self._daily)
        return self._spend(now, midnight, slots, hour, day)

    def _spend(
        self, now: datetime, midnight: datetime, slots: Sequence[SpendSlot], hour: int, day: BudgetDay
    ) -> Spend:
        today = [slot for slot in slots if slot.begin >= midnight]
        billed = sum(slot.billed for slot in today)
        return Spend(
            at=now,
            today=billed,
            by_lane={lane: sum(slot.billed for slot in today if slot.lane is lane) for lane in Lane},
            calls_today=sum(slot.calls for slot in today),
            unanswered_today=sum(slot.unanswered for slot in today),
            last_hour=hour,
            last_24_hours=sum(slot.billed for slot in slots if slot.begin >= _slot(now - _DAY)),
            ends_at=day.ends_at,
            forecast=billed + round(hour * ((day.ends_at - now) / _HOUR)),
            budget=self._daily.daily or None,
            taken=day.taken,
        )


def _slot(at: datetime) -> datetime:
    """The beginning of a moment's quarter of an hour."""
    seconds = int(SPEND_SLOT.total_seconds())
    return datetime.fromtimestamp(int(at.timestamp()) // seconds * seconds, UTC)
