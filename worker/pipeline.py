"""The one way a batch goes: known, asked, decided, stored, published. ``run_batch`` is the map.

Safe to run twice for the same request: its key has one ledger row for ever, its event one id, and a
number in flight is not bought again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from threading import Event
from typing import NamedTuple

from sqlalchemy import Engine

from worker import logs
from worker.batch import Batch
from worker.batching import BatchOutcome, Postponed, Waiter
from worker.buyer import Buyer, Purchase
from worker.errors import NotConfirmed, Rejected, StorageUnavailable
from worker.portability import events
from worker.portability.records import (
    CheckedRequest,
    Finding,
    NoAnswer,
    PortRecord,
)
from worker.portability.requests import CheckRequest, Lane, RequestKey
from worker.portability.rules import Rules
from worker.publisher import Publisher
from worker.sharing import Sharing
from worker.storage import dead_letters, engine, gate, ledger, outbox, port_records
from worker.storage.dead_letters import DeadLetter
from worker.storage.gate import ClosedGate
from worker.storing import store

log = logs.get(__name__)

MOST_PURCHASES = 3
"""A number is bought at most so often for one request."""
_MOST_FAILURES = 3
"""Failed calls after which a recharge is told so instead of waiting for its expiry, and a number that is
refused by itself is given up."""
_LONGEST_RETRY_SECONDS = 30.0
_GATE_PAUSE_SECONDS = 1.0

NEVER_ANSWERED = (
    f"{MOST_PURCHASES} calls with this number were sent and their answers lost, so it may have been billed "
    "as often: see the worker's log, and replay it (presend dead replay) once the provider is well"
)


class _Known(NamedTuple):
    """What Postgres knew before anything was asked."""

    closed_gate: ClosedGate | None
    rows: dict[RequestKey, CheckedRequest]
    records: dict[str, PortRecord]


class Pipeline:
    """Decides batches of requests; every collaborator comes in by argument."""

    def __init__(
        self,
        *,
        database: Engine,
        sharing: Sharing,
        buyer: Buyer,
        publisher: Publisher,
        rules: Rules,
        account: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._sharing = sharing
        self._buyer = buyer
        self._publisher = publisher
        self._rules = rules
        self._account = account
        self._now = now
        self.giving_up = Event()
        """Set at shutdown: transactions stop being retried."""

    def run_batch(self, waiters: Sequence[Waiter]) -> BatchOutcome:
        """Decide a batch of one lane's requests: one look, one purchase, one transaction, its events."""
        batch = Batch.of(waiters, self._now())
        known = self._look_up(batch)
        self._answer_without_asking(batch, known)
        if batch.lane is not Lane.SMS and (batch.findings or batch.known_rows):
            batch.leave_asking()  # somebody waits for the answers that are there
        purchase = self._ask(batch, known.closed_gate)
        self._decide(batch)
        self._store(batch, purchase)
        self._publish(batch)
        return batch.outcome

    def run_one(self, request: CheckRequest) -> CheckedRequest:
        """Decide one request now, in this thread; a passing fault is waited out until it expires."""
        waiter = Waiter(request)
        while True:
            outcome = self._try_one(waiter)
            if outcome.decided:
                return outcome.decided[0][1]
            if outcome.rejected:
                raise Rejected(outcome.rejected[0][1])
            pause = max(outcome.postponed[0].seconds, outcome.pause_seconds, 0.2 if outcome.lost else 0.0)
            if request.expires_at is not None:
                pause = min(pause, max(0.0, (request.expires_at - self._now()).total_seconds()))
            time.sleep(pause)

    def park(self, letters: Sequence[DeadLetter]) -> None:
        """Park items that could not be taken; returns once Postgres has them."""
        engine.transact_until_done(
            self._database, lambda to: dead_letters.add(to, letters), giving_up=self.giving_up
        )

    def _try_one(self, waiter: Waiter) -> BatchOutcome:
        try:
            return self.run_batch([waiter])
        except StorageUnavailable:
            expires_at = waiter.request.expires_at
            if expires_at is not None and self._now() > expires_at:
                raise
            return BatchOutcome(postponed=[Postponed(waiter, 0.5)])

    # -- the steps ----------------------------------------------------------------------------

    def _look_up(self, batch: Batch) -> _Known:
        msisdns = {waiter.request.msisdn for waiter in batch.waiters() if waiter.request.msisdn is not None}
        return engine.read(
            self._database,
            lambda to: _Known(
                gate.read(to, self._account), ledger.find(to, batch.by_key), port_records.read(to, msisdns)
            ),
        )

    def _answer_without_asking(self, batch: Batch, known: _Known) -> None:
        """Repeat what was decided before; answer by expiry, rule or record; the rest must be asked for."""
        for waiter in list(batch.waiters()):
            request = waiter.request
            row = known.rows.get(request.key)
            if row is not None:
                batch.repeat(waiter, row)
                continue
            record = known.records.get(request.msisdn or "")
            finding = self._rules.finding(request, record, now=batch.now, shares_from=waiter.shares_from)
            if finding is None:
                batch.asking.append(waiter)
            else:
                batch.found(waiter, finding)

    def _ask(self, batch: Batch, closed_gate: ClosedGate | None) -> Purchase | None:
        """Buy the numbers nobody else is buying, and hand every waiter its number's answer."""
        if not batch.asking:
            return None
        if closed_gate is not None:
            self._stop_at_gate(batch, batch.asking)
            return None
        self._give_up_bought_enough(batch)
        call, held = self._sharing.claim(batch)
        if not held:
            return None
        purchase = self._buyer.buy(call, held)
        for waiter in batch.asking:  # counted now: whatever goes wrong after this, it was paid for
            waiter.bought += waiter.request.msisdn in purchase.bought
        batch.outcome.lost = purchase.lost
        if purchase.account_fault is not None:
            self._close_gate(str(purchase.account_fault))
        self._answer_with(batch, purchase)
        return purchase

    def _answer_with(self, batch: Batch, purchase: Purchase) -> None:
        paid: set[str] = set()
        without: list[Waiter] = []
        for waiter in batch.asking:
            msisdn = waiter.request.msisdn or ""
            bought = purchase.bought.get(msisdn)
            if bought is None:
                without.append(waiter)
                continue
            # The first waiter of a number is the one who bought it.
            live = msisdn not in paid
            paid.add(msisdn)
            batch.found(waiter, bought.finding(live=live))
            if live:
                batch.call_ids[waiter.request.key] = bought.call.id
        if purchase.account_fault is not None:
            self._stop_at_gate(batch, without)
        else:
            for waiter in without:
                self._go_without(batch, waiter, purchase)

    @staticmethod
    def _give_up_bought_enough(batch: Batch) -> None:
        """Buy nothing a fourth time: three answers were paid for, and something kept each from its commit."""
        for waiter in [one for one in batch.asking if one.bought >= MOST_PURCHASES]:
            batch.asking.remove(waiter)
            if batch.lane is Lane.SMS:
                batch.reject(waiter, NEVER_ANSWERED)
            else:
                batch.found(waiter, NoAnswer.PROVIDER_FAILING)

    @staticmethod
    def _stop_at_gate(batch: Batch, waiters: Sequence[Waiter]) -> None:
        """A recharge is told at once; an sms waits for the gate to open."""
        for waiter in waiters:
            if batch.lane is Lane.SMS:
                batch.postpone(waiter, _GATE_PAUSE_SECONDS)
                batch.outcome.pause_seconds = _GATE_PAUSE_SECONDS
            else:
                batch.found(waiter, NoAnswer.GATE_CLOSED)

    @staticmethod
    def _go_without(batch: Batch, waiter: Waiter, purchase: Purchase) -> None:
        """Wait for another call; who has waited for too many is told, or parked."""
        waiter.failures += 1
        waiter.bought += purchase.unanswered[waiter.request.msisdn or ""]
        if batch.lane is not Lane.SMS and waiter.failures >= _MOST_FAILURES:
            batch.found(waiter, NoAnswer.PROVIDER_FAILING)
        elif waiter.bought >= MOST_PURCHASES:
            batch.reject(waiter, NEVER_ANSWERED)
        elif waiter.request.msisdn in purchase.refused and waiter.failures >= _MOST_FAILURES:
            batch.reject(waiter, _refused(purchase.refused[waiter.request.msisdn]))
        else:
            batch.postpone(waiter, _retry_seconds(waiter.failures))

    def _close_gate(self, reason: str) -> None:
        newly = engine.transact_until_done(
            self._database,
            lambda to: gate.close(to, self._account, by=gate.BY_PROVIDER, reason=reason),
            giving_up=self.giving_up,
        )
        if newly:
            log.error("gate_closed", reason=reason, next_step="mend the account; the gate opens by itself")

    def _decide(self, batch: Batch) -> None:
        decided_at = self._now()
        for key, finding in batch.findings.items():
            batch.rows.append(self._row(batch, batch.by_key[key][0].request, finding, decided_at))

    def _row(
        self, batch: Batch, request: CheckRequest, finding: Finding | NoAnswer, decided_at: datetime
    ) -> CheckedRequest:
        decision = self._rules.decide(request, finding)
        found = finding if isinstance(finding, Finding) else Finding()
        return CheckedRequest(
            source=request.source,
            lane=request.lane,
            reference=request.reference,
            attempt=request.attempt,
            msisdn=request.msisdn,
            asked_operator=request.operator,
            failure_code=request.failure_code,
            status=found.status,
            range_holder=found.range_holder,
            current_operator=found.current_operator,
            target_operator=decision.target_operator,
            area=found.area,
            observed_at=found.observed_at,
            decision=decision.decision,
            reason=decision.reason,
            answered_from=found.answered_from,
            batch_id=batch.id,
            call_id=batch.call_ids.get(request.key),
            event_id=events.event_id(request.key),
            received_at=request.received_at,
            decided_at=decided_at,
        )

    def _store(self, batch: Batch, purchase: Purchase | None) -> None:
        """One transaction: records, changes, ledger, outbox mark, the calls' ends."""
        if not batch.rows and purchase is None:
            return
        decided_elsewhere = engine.transact_until_done(
            self._database, partial(store, batch=batch, purchase=purchase), giving_up=self.giving_up
        )
        # After a lost reply to COMMIT that is our own first run: then the relay marks the batch.
        batch.rows = [row for row in batch.rows if row.key not in decided_elsewhere]
        for row in decided_elsewhere.values():
            batch.repeat(batch.by_key[row.key][0], row)

    def _publish(self, batch: Batch) -> None:
        """Send the events; what the broker does not confirm in time is the relay's."""
        outgoing = [events.of_check(row) for row in batch.decided() if row.lane is not Lane.DIRECT]
        outgoing += [events.of_port_change(change) for change in batch.changes]
        try:
            self._publisher.publish(outgoing)
        except NotConfirmed as exc:
            log.warning("events_left_to_relay", batch_id=batch.id, events=len(outgoing), error=str(exc))
            return
        if batch.rows or batch.changes:
            self._mark_emitted(batch.id)

    def _mark_emitted(self, batch_id: str) -> None:
        try:
            engine.read(self._database, lambda to: outbox.mark_emitted(to, batch_id, self._now()))
        except StorageUnavailable as exc:
            log.warning("batch_not_marked", batch_id=batch_id, error=str(exc))  # sent again, recognisably


def _refused(code: int | None) -> str:
    """Why a number is given up that the provider refuses by itself, whatever else it answers."""
    return (
        f"the provider refused this number with code {code} {_MOST_FAILURES} times, asked by itself and "
        "unbilled, while the account is well: ask the provider about it, then replay it (presend dead replay)"
    )


def _retry_seconds(failures: int) -> float:
    """How long a number that failed so often waits for its next call: 0.2 s doubling, at most 30 s."""
    return min(_LONGEST_RETRY_SECONDS, 0.1 * 2.0**failures)
