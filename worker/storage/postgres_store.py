"""The store in Postgres: the transactions behind each step of a batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from threading import Event
from typing import Any, TypeVar

from psycopg.errors import InvalidTextRepresentation, UniqueViolation
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from worker.portability.changes import merged, observed_change
from worker.portability.records import CheckedRequest, PortChange, PortRecord
from worker.portability.requests import Lane, RequestKey
from worker.storage import breaker, budget, calls, dead_letters, engine, gate, ledger, outbox, port_records
from worker.storage.budget import Budget
from worker.storage.calls import Call, EarlyClaim, EndedCall
from worker.storage.dead_letters import DeadLetter
from worker.storage.presence import Absences, Presence
from worker.storage.statements import COMMIT, Statement, run, together
from worker.storage.store import Claim, Known, Settled, Settlement
from worker.storage.suspicions import Suspicions

T = TypeVar("T")
C = TypeVar("C", bound=Collection[Any])


class PostgresStore:
    """See :class:`worker.storage.store.Store`; each method is one transaction, or a few single statements."""

    def __init__(self, database: Engine, *, daily: Budget = Budget()) -> None:  # noqa: B008 - frozen
        self._database = database
        self._budget = daily
        self._presence = Presence(database)
        self._absences = Absences()
        self._giving_up = Event()
        self.suspicions = Suspicions(database, giving_up=self._giving_up)

    def look_up(
        self,
        account: str,
        lane: Lane,
        keys: Collection[RequestKey],
        msisdns: Collection[str],
        letters: Collection[int] = (),
        *,
        early: EarlyClaim | None = None,
    ) -> Known:
        """See ``Store``."""
        claiming = []
        if early is not None and not self._budget.daily:
            claiming.append(calls.claiming_early(early, account, owner=self._presence.require()))

        def known(to: Connection) -> Known:
            found = together(
                to,
                *claiming,
                gate.reading(account),
                breaker.reading(account, lane),
                ledger.finding(keys),
                port_records.reading(msisdns),
                *_for_any(letters, dead_letters.of_messages),
            )
            closed_gate, set_breaker, rows, records, *parked = found[len(claiming) :]
            return Known(
                closed_gate,
                set_breaker,
                rows,
                records,
                parked[0] if parked else {},
                found[0] if claiming else None,
            )

        return engine.read(self._database, known)

    def claim(
        self, call: Call, keys: Mapping[str, Sequence[RequestKey]], *, overtaken: Collection[str]
    ) -> Claim:
        """See ``Store``."""
        call = replace(call, owner=self._presence.require())
        msisdns = list(keys)
        if self._budget.daily:
            hold = partial(self._hold, call=call, msisdns=msisdns, overtaken=overtaken)
            held, unaffordable = engine.transact(self._database, hold)
            return engine.read(
                self._database,
                lambda to: _claim(to, keys, held, port_records.read(to, keys), unaffordable=unaffordable),
            )

        def hold_and_read(to: Connection) -> Claim:
            held, records = together(
                to, calls.claiming(call, msisdns, overtaken=overtaken), port_records.reading(keys)
            )
            return _claim(to, keys, held, records)

        return engine.read(self._database, hold_and_read)

    def let_go(self, call_id: str, msisdns: Collection[str], *, forget_call: bool) -> None:
        """See ``Store``."""

        def release(to: Connection) -> None:
            calls.release(to, call_id, msisdns)
            if forget_call:
                budget.settle(to, call_id, 0)
                calls.discard(to, call_id)

        engine.transact(self._database, release)

    def split(self, call: Call, msisdns: Sequence[str], *, from_id: str) -> set[str]:
        """See ``Store``."""
        call = replace(call, owner=self._presence.owner)
        return engine.read(self._database, lambda to: calls.split(to, call, msisdns, from_id=from_id))

    def announce(self, lanes: Collection[Lane]) -> None:
        """Let this process be seen to work for these lanes (``worker.storage.presence``)."""
        self._presence.announce(lanes)

    def owner(self) -> int:
        """Return the number whose lock says that this process lives."""
        return self._presence.require()

    def give_up_dead_calls(self) -> int:
        """See ``Store``."""
        return engine.read(self._database, lambda to: calls.give_up(to, gone=self._absences.gone(to)))

    def close_gate(self, account: str, *, by: str, reason: str) -> bool:
        """See ``Store``."""
        return self._until_done(lambda to: gate.close(to, account, by=by, reason=reason))

    def may_probe(self, account: str, lane: Lane, *, hold_seconds: float) -> datetime | None:
        """See ``Store``."""
        return engine.read(
            self._database, lambda to: breaker.probe(to, account, lane, hold_seconds=hold_seconds)
        )

    def call_ended(self, account: str, lane: Lane, *, lost: bool, probe: datetime | None = None) -> None:
        """See ``Store``."""
        jitter = random.uniform(0.5, 1)  # noqa: S311 - jitter
        if lost:
            engine.read(
                self._database, lambda to: breaker.lost(to, account, lane, jitter=jitter, probe=probe)
            )
        else:
            engine.read(self._database, lambda to: breaker.answered(to, account, lane))

    def settle(self, settlement: Settlement) -> Settled:
        """See ``Store``."""

        def work(to: Connection, *, as_seen: bool) -> Settled:
            spender = settlement.call_id if self._budget.daily else None
            settled = _settle(to, settlement, as_seen=as_seen, ends=spender is None)
            if spender is not None:
                budget.settle(to, spender, _spent(settlement.ended))
            return settled

        try:
            return self._until_done(partial(work, as_seen=True))
        except DBAPIError as exc:
            if not isinstance(exc.orig, UniqueViolation | InvalidTextRepresentation):
                raise
        # A request was decided, or a number's record stored, since the batch looked: elsewhere, or here, and
        # COMMIT's answer was lost.
        return self._until_done(partial(work, as_seen=False))

    def mark_emitted(self, batch_id: str, at: datetime) -> None:
        """See ``Store``."""
        engine.read(self._database, lambda to: outbox.mark_emitted(to, batch_id, at))

    def park(self, letters: Sequence[DeadLetter]) -> dict[str, CheckedRequest]:
        """See ``Store``."""
        return self._until_done(lambda to: dead_letters.add_unless_decided(to, letters))

    def relay(
        self,
        send: Callable[[Sequence[CheckedRequest], Sequence[PortChange]], None],
        *,
        older_than_seconds: float,
        most: int,
        now: Callable[[], datetime],
    ) -> int:
        """See ``Store``."""

        def resend(to: Connection) -> int:
            stale = outbox.stale_batches(to, older_than_seconds=older_than_seconds, most=most)
            for batch_id in stale:
                send(ledger.of_batch(to, batch_id), port_records.changes_of_batch(to, batch_id))
                outbox.mark_emitted(to, batch_id, now())
            return len(stale)

        return engine.transact(self._database, resend)

    def give_up(self) -> None:
        """See ``Store``."""
        self._giving_up.set()

    def close(self) -> None:
        """Let go of the lock by which others see this process."""
        self._presence.close()

    def _until_done(self, work: Callable[[Connection], T]) -> T:
        return engine.transact_until_done(self._database, work, giving_up=self._giving_up)

    def _hold(
        self, to: Connection, *, call: Call, msisdns: Sequence[str], overtaken: Collection[str]
    ) -> tuple[set[str], set[str]]:
        """Claim what is free, as far as the budget goes.

        What it does not go for is as if it had never been claimed: a number that was to be taken over from
        another call stays with that.
        """
        wanted, unaffordable = list(msisdns), set[str]()
        while wanted:
            attempt = to.begin_nested()
            held = run(to, calls.claiming(call, wanted, overtaken=overtaken))
            granted = budget.take(to, self._budget, call.lane, call.id, len(held)) if held else 0
            if granted == len(held):
                attempt.commit()
                return held, unaffordable
            attempt.rollback()
            free = [msisdn for msisdn in wanted if msisdn in held]
            wanted = free[:granted]
            unaffordable.update(free[granted:])
        return set(), unaffordable


def _claim(
    to: Connection,
    keys: Mapping[str, Sequence[RequestKey]],
    held: set[str],
    records: Mapping[str, PortRecord],
    *,
    unaffordable: Collection[str] = (),
) -> Claim:
    elsewhere = keys.keys() - held - set(unaffordable)
    holders = calls.holders(to, elsewhere) if elsewhere else {}
    # Another copy of a request may have been answered since the batch looked: then a record was there.
    answerable = [key for msisdn in records for key in keys[msisdn]]
    return Claim(held, set(unaffordable), records, holders, ledger.find(to, answerable))


def _settle(to: Connection, settlement: Settlement, *, as_seen: bool, ends: bool) -> Settled:
    """Store it, in one round trip where it can be.

    ``as_seen`` takes it that no request was decided, and no record stored, since the batch saw that there was
    none; else ``UniqueViolation`` of a request's key, ``InvalidTextRepresentation`` (see ``port_records``).
    ``ends`` says that nothing else is done in the transaction: its COMMIT goes along.
    """
    absent = settlement.without_record if as_seen else ()
    stored = _standing(to, [new.msisdn for new in settlement.learned if new.msisdn not in absent])
    records, changes = _learned(settlement, stored)
    storing: list[Statement[Any]] = [
        *_for_any(settlement.rows, ledger.adding_new if as_seen else ledger.adding),
        *([_batch(settlement, with_changes=bool(changes))] if settlement.rows or changes else []),
        *_for_any([record for record in records if record.msisdn in absent], port_records.adding_new),
        *_for_any([record for record in records if record.msisdn not in absent], port_records.putting),
        *_for_any(changes, port_records.adding_changes),
        *map(calls.closing, settlement.ended),
        *([dead_letters.deciding()] if settlement.letters else []),
    ]
    last = [COMMIT] if ends else []
    if as_seen or not settlement.letters:
        found = together(to, *storing, *_for_any(settlement.letters, dead_letters.withdrawing), *last)
        before = found[0] if settlement.rows else set()
    else:
        before, *_ = together(to, *storing)
        decided = [letter for letter, key in settlement.letters.items() if key not in before]
        together(to, *_for_any(decided, dead_letters.withdrawing), *last)
    return Settled(ledger.find(to, before), changes)


def _batch(settlement: Settlement, *, with_changes: bool) -> Statement[None]:
    return outbox.adding(
        settlement.batch_id,
        lane=settlement.lane,
        decided_at=settlement.decided_at,
        numbers=len({row.msisdn for row in settlement.rows}),
        with_changes=with_changes,
    )


def _standing(to: Connection, msisdns: Sequence[str]) -> dict[str, PortRecord]:
    """The records of these numbers, which stay as they are until the transaction ends."""
    return run(to, port_records.locking(msisdns)) if msisdns else {}


def _learned(
    settlement: Settlement, stored: Mapping[str, PortRecord]
) -> tuple[list[PortRecord], list[PortChange]]:
    """Return what was learned, merged with the records as they stand, and the changes of operator."""
    records, changes = [], []
    for new in settlement.learned:
        old = stored.get(new.msisdn)
        change = observed_change(old, new, batch_id=settlement.batch_id)
        if change is not None:
            changes.append(change)
        records.append(merged(old, new))
    return records, changes


def _for_any(values: C, make: Callable[[C], Statement[T]]) -> list[Statement[T]]:
    """The statement for these values; none where there are none."""
    return [make(values)] if values else []


def _spent(ended: Iterable[EndedCall]) -> int:
    """Numbers that were, or may have been, billed."""
    return sum(len(call.unanswered) + (call.billed or 0) for call in ended)
