"""What upkeep sees of all processes together, for Prometheus: in Postgres, at the broker, of the provider.

A look asks each of the three; one that does not answer keeps the others from nothing. Of the provider the
last reading of its balance is shown, which upkeep takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from kombu.exceptions import OperationalError
from sqlalchemy import Connection, Engine

from worker import backlog, logs
from worker.carrier.protocol import FeeType
from worker.errors import StorageUnavailable
from worker.metrics import fleet as shown
from worker.metrics.messages import OTHER_TASK, TASKS
from worker.portability.requests import Lane
from worker.storage import balance_readings, breaker, budget, dead_letters, engine, gate, presence, reports
from worker.storage.budget import Budget
from worker.storage.lane_stops import Cause
from worker.storage.reports import SPEND_SLOT

log = logs.get(__name__)

LOOK_SECONDS = 5.0
_LETTERS_SECONDS = 30.0
"""Counting dead letters reads them all."""
_QUEUE_LANES = (Lane.RECHARGE, Lane.SMS)
_DAY = timedelta(days=1)
_SETTLED_AFTER = timedelta(minutes=5)
"""A call ends, or is given up, long before."""

Values = dict[str, dict[tuple[str, ...], float]]


class Fleet:
    """Looks, and shows what it saw. Used by upkeep's one thread."""

    def __init__(
        self,
        *,
        database: Engine,
        broker_url: str,
        account: str,
        daily: Budget,
        causes: Mapping[str, Cause],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._broker_url = broker_url
        self._account = account
        self._daily = daily
        self._causes = causes
        self._now = now
        self._clock = clock
        self._next_look = 0.0
        self._next_letters = 0.0
        self._letters: dict[tuple[str, ...], float] = {}
        # monotonic seconds at which a queue was last seen empty, or first seen
        self._empty_at: dict[str, float] = {}
        self._spent = SpendOfADay()
        self._spent_numbers = 0

    def lead(self) -> None:
        """This process has upkeep's lock: it shows the fleet from now on."""
        self._next_look = self._next_letters = 0.0
        self._empty_at.clear()
        shown.lead(True)

    def stand_by(self) -> None:
        """It has the lock no more."""
        shown.lead(False)

    def look(self) -> None:
        """Look again if it is time."""
        if self._clock() < self._next_look:
            return
        self._next_look = self._clock() + LOOK_SECONDS
        for source, show in (
            (shown.BROKER, self._show_broker),
            (shown.DATABASE, self._show_database),
            (shown.PROVIDER, self._show_provider),
        ):
            try:
                show()
            except (StorageUnavailable, OperationalError, OSError) as exc:
                log.warning("fleet_not_seen", source=source, error=f"{type(exc).__name__}: {exc}"[:200])

    def _show_broker(self) -> None:
        now, queues = self._clock(), backlog.read(self._broker_url)
        for name, its in queues.items():
            if not its.messages or name not in self._empty_at:
                self._empty_at[name] = now
        values: Values = {
            "presend_queue_messages": {(name,): its.messages for name, its in queues.items()},
            "presend_queue_consumers": {
                (name,): its.consumers for name, its in queues.items() if its.consumers is not None
            },
            "presend_queue_not_empty_seconds": {(name,): now - self._empty_at[name] for name in queues},
        }
        shown.show(shown.BROKER, values, at=self._now().timestamp())

    def _show_database(self) -> None:
        values = engine.read(self._database, self._read)
        shown.show(shown.DATABASE, values, at=self._now().timestamp())

    def _read(self, to: Connection) -> Values:
        unsent = reports.unsent(to)
        age = 0.0 if unsent.oldest_at is None else (self._now() - unsent.oldest_at).total_seconds()
        closed = gate.closed(to)
        failing = {its.lane for its in breaker.failing(to)}
        alive = [lane for process in presence.alive(to) for lane in process.lanes]
        self._spent_numbers = self._spent.look(to, self._now())
        if self._clock() >= self._next_letters:
            self._next_letters = self._clock() + _LETTERS_SECONDS
            self._letters = _letters(to)
        return {
            "presend_outbox_batches": {(): unsent.batches},
            "presend_outbox_oldest_seconds": {(): max(0.0, age)},
            "presend_dead_letters": self._letters,
            "presend_gate_closed": {
                ("hand",): any(its.by_hand for its in closed),
                ("provider",): any(not its.by_hand and its.account == self._account for its in closed),
            },
            "presend_lane_stopped": self._stops(to),
            "presend_provider_failing": {(lane,): lane in failing for lane in Lane},
            "presend_workers_alive": {(lane,): alive.count(lane) for lane in Lane},
            "presend_spend_day_numbers": {(): self._spent_numbers},
            **self._budget(to),
        }

    def _stops(self, to: Connection) -> dict[tuple[str, ...], float]:
        stopped = {(stop.lane, name) for name, cause in self._causes.items() for stop in cause(to)}
        return {(lane, name): (lane, name) in stopped for lane in _QUEUE_LANES for name in self._causes}

    def _budget(self, to: Connection) -> Values:
        if not self._daily.daily:
            return {}
        return {
            "presend_budget_limit_numbers": {(lane,): self._daily.limit(lane) for lane in Lane},
            "presend_budget_taken_numbers": {(): budget.today(to, self._daily).taken},
        }

    def _show_provider(self) -> None:
        latest = engine.read(self._database, lambda to: balance_readings.latest(to, self._account))
        if latest is None:
            return
        reading, fee_type = latest
        postpaid = fee_type is FeeType.POSTPAID
        values: Values = {
            "presend_provider_balance_numbers": {(): reading.balance},
            "presend_provider_postpaid": {(): postpaid},
        }
        if self._spent_numbers and not postpaid:
            seconds = max(0, reading.balance) / self._spent_numbers * _DAY.total_seconds()
            values["presend_balance_left_seconds"] = {(): seconds}
        shown.show(shown.PROVIDER, values, at=reading.answered_at.timestamp())


class SpendOfADay:
    """Numbers billed in the last 24 hours: quarters of an hour that are over are read once."""

    def __init__(self) -> None:
        self._over: dict[datetime, int] = {}
        self._over_until: datetime | None = None

    def look(self, to: Connection, now: datetime) -> int:
        """Return the numbers billed."""
        begin, open_from = _slot(now - _DAY), _slot(now - _SETTLED_AFTER)
        since = max(begin, self._over_until or begin)
        if since < open_from:
            for slot in reports.spend(to, since=since, until=open_from):
                self._over[slot.begin] = self._over.get(slot.begin, 0) + slot.billed
            self._over_until = open_from
        self._over = {at: billed for at, billed in self._over.items() if at >= begin}
        last = reports.spend(to, since=open_from, until=now)
        return sum(self._over.values()) + sum(slot.billed for slot in last)


def _slot(moment: datetime) -> datetime:
    """The beginning of the slot of spend a moment is in."""
    seconds = SPEND_SLOT.total_seconds()
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


def _letters(to: Connection) -> dict[tuple[str, ...], float]:
    counts = dead_letters.counts(to, TASKS)
    return {
        (task, replayed): counts.get((task if task != OTHER_TASK else None, replayed == "yes"), 0)
        for task in (*TASKS, OTHER_TASK)
        for replayed in ("no", "yes")
    }
