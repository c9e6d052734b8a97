"""Upkeep: the one process that sends what was left unsent and sweeps up after crashes.

It runs under an advisory lock in Postgres, so any number may stand by. Every chore is safe to run twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event

from kombu.exceptions import OperationalError
from sqlalchemy import Connection, Engine, text

from worker import dead_queue, logs
from worker.carrier.protocol import Balance, CarrierLookup
from worker.errors import CarrierError, NotConfirmed, StorageUnavailable
from worker.fleet import Fleet
from worker.intake import Intake
from worker.metrics import events as counted
from worker.metrics import messages
from worker.portability import events
from worker.portability.reconciliation import Reading
from worker.portability.records import CheckedRequest, PortChange
from worker.portability.requests import Lane, RequestKey
from worker.publisher import Publisher
from worker.storage import balance_readings, dead_letters, engine, gate, holds, ledger, retention
from worker.storage.dead_letters import DeadLetter
from worker.storage.retention import NEVER_REPLAYED, PRUNED, Retention
from worker.storage.store import Store

log = logs.get(__name__)

_LOCK = text("SELECT pg_try_advisory_lock(hashtext('presend upkeep'))")
_ROUND_SECONDS = 1.0
_BALANCE_SECONDS = 2.0
_RELAY_AFTER_SECONDS = 30.0
_BATCHES_A_RELAY = 20
_PRUNE_SECONDS = 3600.0


class Upkeep:
    """The chores, and the loop that runs them."""

    def __init__(
        self,
        *,
        database: Engine,
        store: Store,
        carrier: CarrierLookup,
        publisher: Publisher,
        intake: Mapping[Lane, Intake],
        broker_url: str | None,
        account: str = "",
        retention: Retention | None = None,
        fleet: Fleet | None = None,
        balance_seconds: float = 0.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._store = store
        self._carrier = carrier
        self._publisher = publisher
        self._intake = intake
        self._broker_url = broker_url
        self._account = account
        self._now = now
        self._retention = retention
        self._fleet = fleet
        self._balance_seconds = balance_seconds
        self._next_balance = 0.0
        self._next_reading = datetime.min.replace(tzinfo=UTC)
        self._next_prune = 0.0

    def run(self, stop: Event) -> None:
        """Do the chores about once a second until ``stop``; stand by while another process does them."""
        while not stop.is_set():
            try:
                with self._database.connect() as held:
                    if held.execute(_LOCK).scalar():
                        held.commit()
                        log.info("upkeep_started")
                        self._until_lost(held, stop)
                    elif self._fleet is not None:
                        self._fleet.stand_by()
            except Exception as exc:  # noqa: BLE001 - whatever a round met, the next one may not
                log.warning("upkeep_interrupted", error=f"{type(exc).__name__}: {exc}"[:300])
            stop.wait(_ROUND_SECONDS)

    def _until_lost(self, held: Connection, stop: Event) -> None:
        if self._fleet is not None:
            self._fleet.lead()
        try:
            while not stop.is_set():
                held.execute(text("SELECT 1"))  # the lock ends with this connection
                held.commit()
                self.once()
                stop.wait(_ROUND_SECONDS)
        finally:
            if self._fleet is not None:
                self._fleet.stand_by()

    def once(self) -> None:
        """One round of every chore."""
        self._do(
            self.relay,
            self.give_up_dead_calls,
            self.release_holds,
            self.watch_gate,
            self.read_balance,
            self.empty_dead_queue,
            self.prune,
            self.look_at_fleet,
        )

    def for_direct_callers(self, stop: Event) -> None:
        """Do what the front door needs until ``stop``, without the lock: no worker need run beside it."""
        while not stop.wait(_BALANCE_SECONDS):
            self._do(
                self.relay, self.give_up_dead_calls, self.release_holds, self.watch_gate, self.read_balance
            )

    def _do(self, *chores: Callable[[], object]) -> None:
        """One round; a chore that fails does not keep the others from their turn."""
        for chore in chores:
            try:
                chore()
            except (StorageUnavailable, CarrierError, NotConfirmed, OSError, OperationalError) as exc:
                log.warning("chore_failed", chore=getattr(chore, "__name__", ""), error=str(exc))
        self._publisher.close()  # it is needed a few times a day

    def relay(self, *, older_than_seconds: float = _RELAY_AFTER_SECONDS) -> int:
        """Send again, byte-equal, the events of batches nobody saw confirmed; return how many batches."""
        sent = self._store.relay(
            lambda rows, changes: self._publisher.publish(_events_of(rows, changes)),
            older_than_seconds=older_than_seconds,
            most=_BATCHES_A_RELAY,
            now=self._now,
        )
        if sent:
            log.warning("events_relayed", batches=sent)
            counted.relayed(sent)
        return sent

    def give_up_dead_calls(self) -> None:
        """Mark calls whose process died as lost, and let go of the numbers they held."""
        self._store.give_up_dead_calls()

    def release_holds(self) -> None:
        """Release what a front door reserved of its callers' accounts before it ended."""
        left = engine.transact(self._database, holds.recover)
        if left:
            log.warning("holds_released", calls=left, listed_in="presend account statement")

    def watch_gate(self) -> None:
        """Open a gate the provider's account closed, once ``/balance`` is well again."""
        closed = engine.read(self._database, lambda to: gate.read(to, self._account))
        if closed is None or closed.by_hand or time.monotonic() < self._next_balance:
            return
        self._next_balance = time.monotonic() + _BALANCE_SECONDS
        if self._read_balance().can_buy:
            engine.transact(
                self._database,
                lambda to: gate.reopen(to, self._account, by=gate.BY_UPKEEP, reason="/balance is well again"),
            )
            log.warning("gate_opened", was_closed_for=closed.reason)

    def read_balance(self) -> None:
        """Keep what ``/balance`` says, for the audit and the metrics; by whichever process is first."""
        now, pause = self._now(), timedelta(seconds=self._balance_seconds)
        if not pause or now < self._next_reading:
            return
        self._next_reading = now + pause  # also where the provider does not answer
        latest = engine.read(self._database, lambda to: balance_readings.latest(to, self._account))
        if latest is not None and now < latest[0].asked_at + pause:
            self._next_reading = latest[0].asked_at + pause
            return
        self._read_balance()

    def _read_balance(self) -> Balance:
        asked_at = self._now()
        balance = self._carrier.balance()
        reading = Reading(asked_at, self._now(), balance.balance)
        engine.transact(
            self._database, lambda to: balance_readings.add(to, self._account, reading, balance.fee_type)
        )
        return balance

    def empty_dead_queue(self) -> None:
        """Park what the broker gave up delivering; what was decided all the same is sent again instead."""
        if self._broker_url is None:
            return
        for message, acknowledge in dead_queue.messages(self._broker_url):
            items = dead_queue.items(message, self._intake)
            self._publisher.publish(engine.transact(self._database, partial(_settle_dead, items=items)))
            acknowledge()

    def look_at_fleet(self) -> None:
        """Let Prometheus know how all the others stand."""
        if self._fleet is not None:
            self._fleet.look()

    def prune(self) -> None:
        """Delete one batch of what is past its time; once nothing is left, look again in an hour."""
        its = self._retention
        if its is None or time.monotonic() < self._next_prune:
            return
        now, gone = self._now(), 0
        for what in PRUNED:
            pruned = engine.transact(
                self._database, partial(retention.prune_some, what=what, retention=its, now=now)
            )
            if pruned and what == NEVER_REPLAYED:
                log.warning("dead_letters_expired", letters=pruned, setting="PRESEND_DEAD_LETTER_DAYS")
            gone += pruned
        if gone:
            log.info("rows_pruned", rows=gone)
        else:
            self._next_prune = time.monotonic() + _PRUNE_SECONDS


def _settle_dead(
    connection: Connection, items: Sequence[tuple[RequestKey | None, DeadLetter]]
) -> list[events.Event]:
    keys = [key for key, _ in items if key is not None]
    decided = ledger.find(connection, keys) if keys else {}
    parked = [letter for key, letter in items if key not in decided]
    dead_letters.add(connection, parked)
    messages.parked(letter.task for letter in parked)
    return [events.of_check(row) for row in decided.values()]


def _events_of(rows: Sequence[CheckedRequest], changes: Sequence[PortChange]) -> list[events.Event]:
    """A batch's events, as they were sent or should have been."""
    return [
        *(events.of_check(row) for row in rows if row.lane is not Lane.DIRECT),
        *map(events.of_port_change, changes),
    ]
