"""Sharing: a number is bought once for everyone who waits for it, on all workers and lanes.

Before a call its numbers are held in ``in_flight``. A number that another call holds is waited for; a
recharge waits only so long, then takes it over. Postgres owns the claims, so nothing is bought twice
because a cache forgot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from worker.batch import Batch
from worker.batching import Waiter
from worker.portability.records import CheckedRequest, PortRecord
from worker.portability.requests import Lane, RequestKey
from worker.portability.rules import Rules
from worker.storage import calls, engine, ledger, port_records
from worker.storage.calls import Call
from worker.storage.ids import new_id

_POLL_SECONDS = 0.02
_LONG_WAIT_SECONDS = 1.0
"""Past this, the call that others wait for is looked at: its process may have died."""


class _Claim(NamedTuple):
    """What Postgres said to a claim."""

    # numbers that are ours to buy
    held: set[str]
    # stored records, read after the claim: whoever held a number until just now has stored its record
    records: dict[str, PortRecord]
    # when the calls were sent that hold the other numbers
    holders: dict[str, datetime]
    # keys that were decided after the batch looked for them, and before its claim
    decided: dict[RequestKey, CheckedRequest]


@dataclass(frozen=True, slots=True)
class Sharing:
    """Decides, with every other worker, who buys a number."""

    database: Engine
    rules: Rules
    provider: str
    # how long a recharge waits for another call before it buys itself
    patience_seconds: float
    # how long a call for so many numbers may hold them
    hold_seconds: Callable[[int], float]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic

    def claim(self, batch: Batch) -> tuple[Call, set[str]]:
        """Hold the numbers of a batch that nobody buys yet, and return the call to be made for them.

        Requests for the others are postponed; requests answered meanwhile get their finding.
        """
        wanted = batch.wanted()
        call = Call(
            new_id(),
            batch.id,
            batch.lane,
            self.provider,
            self.now(),
            len(wanted),
            self.hold_seconds(len(wanted)),
        )
        overtaken = self._overtaken(batch)
        claim = engine.read(self.database, lambda to: _claim(to, call, batch, overtaken))
        needless = self._answer_from(batch, claim)
        self._wait_for_others(batch, claim)
        if needless:
            self._let_go(call, needless, nothing_left=claim.held == needless)
        held = claim.held - needless
        return replace(call, numbers=len(held)), held

    def _overtaken(self, batch: Batch) -> set[str]:
        if batch.lane is not Lane.RECHARGE:
            return set()
        now = self.clock()
        return {
            waiter.request.msisdn
            for waiter in batch.asking
            if waiter.request.msisdn is not None
            and waiter.sharing_since is not None
            and now - waiter.sharing_since >= self.patience_seconds
        }

    def _answer_from(self, batch: Batch, claim: _Claim) -> set[str]:
        """Answer what the records answer by now; return the numbers that are held needlessly."""
        asking, batch.asking = batch.asking, []
        for waiter in asking:
            row = claim.decided.get(waiter.request.key)
            if row is not None:
                batch.repeat(waiter, row)
                continue
            record = claim.records.get(waiter.request.msisdn or "")
            finding = self.rules.finding(
                waiter.request, record, now=batch.now, shares_from=waiter.shares_from
            )
            if finding is None:
                batch.asking.append(waiter)
            else:
                batch.found(waiter, finding)
        return claim.held - batch.wanted()

    def _wait_for_others(self, batch: Batch, claim: _Claim) -> None:
        """Let requests wait for the calls that hold their numbers, and look again soon."""
        asking, batch.asking = batch.asking, []
        now, longest = self.clock(), 0.0
        for waiter in asking:
            if waiter.request.msisdn in claim.held:
                batch.asking.append(waiter)
                continue
            sent_at = claim.holders.get(waiter.request.msisdn or "")
            for one in batch.by_key[waiter.request.key]:
                _note_sharing(one, now, sent_at)
            longest = max(longest, now - (waiter.sharing_since or now))
            batch.postpone(waiter, _POLL_SECONDS)
        if longest > _LONG_WAIT_SECONDS:
            engine.read(self.database, calls.give_up_overdue)

    def _let_go(self, call: Call, msisdns: Collection[str], *, nothing_left: bool) -> None:
        def release(connection: Connection) -> None:
            calls.release(connection, call.id, msisdns)
            if nothing_left:
                calls.discard(connection, call.id)

        engine.read(self.database, release)


def _claim(connection: Connection, call: Call, batch: Batch, overtaken: Collection[str]) -> _Claim:
    wanted = batch.wanted()
    held = calls.open_and_claim(connection, call, wanted, overtaken=overtaken)
    elsewhere = set(wanted) - held
    holders: Mapping[str, datetime] = calls.holders(connection, elsewhere) if elsewhere else {}
    records = port_records.read(connection, wanted)
    # Another copy of a request may have bought its number since this batch looked: the record is young then.
    since = call.sent_at - timedelta(seconds=call.hold_seconds)
    keys = [
        waiter.request.key
        for waiter in batch.asking
        if (record := records.get(waiter.request.msisdn or "")) is not None and record.observed_at > since
    ]
    decided = ledger.find(connection, keys) if keys else {}
    return _Claim(held, records, dict(holders), decided)


def _note_sharing(waiter: Waiter, now: float, sent_at: datetime | None) -> None:
    if waiter.sharing_since is None:
        waiter.sharing_since = now
    if sent_at is not None:
        waiter.shares_from = min(sent_at, waiter.request.received_at)
