"""The one way a batch goes: known, asked, decided, stored, published. ``run_batch`` is the map.

Safe to run twice for the same request: its key has one ledger row for ever, its event one id, and a
number in flight is not bought again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Event
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from worker import logs
from worker.batching import BatchOutcome, Postponed, Waiter
from worker.buyer import Bought, Buyer, EndedCall, Purchase
from worker.errors import NotConfirmed, StorageUnavailable
from worker.portability import events
from worker.portability.changes import finding_of, merged, observed_change
from worker.portability.decision import answered_by_rule, decide
from worker.portability.failure_codes import FailureClass, FailureCodes
from worker.portability.freshness import Freshness
from worker.portability.records import (
    AnsweredFrom,
    CheckedRequest,
    Finding,
    NoAnswer,
    PortChange,
    PortRecord,
)
from worker.portability.requests import CheckRequest, Lane, RequestKey
from worker.publisher import Publisher
from worker.storage import calls, dead_letters, engine, gate, ledger, outbox, port_records
from worker.storage.calls import Call
from worker.storage.dead_letters import DeadLetter
from worker.storage.gate import ClosedGate
from worker.storage.ids import new_id

log = logs.get(__name__)

MOST_PURCHASES = 3
"""A number is bought at most so often for one request."""
_MOST_FAILURES = 3
"""Failed calls after which a recharge is told so instead of waiting for its expiry."""
_GATE_PAUSE_SECONDS = 1.0
_SHARE_POLL_SECONDS = 0.02
_LONG_SHARE_SECONDS = 1.0
"""Past this, a call that others wait for is looked at: its process may have died."""

NEVER_ANSWERED = (
    f"the provider took this number {MOST_PURCHASES} times and never answered: "
    "replay it (presend dead replay) once the provider is well"
)
CONFLICT = (
    "the same source, reference and attempt was used before with another number or operator: "
    "give each request its own reference, and count attempt up when the same one is sent again"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the decisions of every batch rest on."""

    freshness: Freshness
    failure_codes: FailureCodes
    not_asked: frozenset[FailureClass]
    max_attempts: int
    share_wait_seconds: float


class _Known(NamedTuple):
    """What Postgres knew before anything was asked."""

    closed_gate: ClosedGate | None
    rows: dict[RequestKey, CheckedRequest]
    records: dict[str, PortRecord]


@dataclass(slots=True)
class _Batch:
    """A batch on its way through the pipeline."""

    id: str
    lane: Lane
    now: datetime
    # requests of one key decide once; the first one speaks for the others
    by_key: dict[RequestKey, list[Waiter]] = field(default_factory=dict)
    findings: dict[RequestKey, Finding | NoAnswer] = field(default_factory=dict)
    # requests whose numbers the provider must be asked for
    asking: list[Waiter] = field(default_factory=list)
    call_ids: dict[RequestKey, str] = field(default_factory=dict)
    # rows this batch decides, and rows that were decided before
    rows: list[CheckedRequest] = field(default_factory=list)
    known_rows: dict[RequestKey, CheckedRequest] = field(default_factory=dict)
    changes: list[PortChange] = field(default_factory=list)
    outcome: BatchOutcome = field(default_factory=BatchOutcome)

    def waiters(self) -> Iterable[Waiter]:
        """One waiter a key."""
        return (group[0] for group in self.by_key.values())

    def postpone(self, waiter: Waiter, seconds: float) -> None:
        """Let every request of this waiter's key wait again."""
        group = self.by_key.pop(waiter.request.key)
        self.outcome.postponed += [Postponed(one, seconds) for one in group]

    def reject(self, waiter: Waiter, reason: str) -> None:
        """Give up every request of this waiter's key, with a reason."""
        group = self.by_key.pop(waiter.request.key)
        self.outcome.rejected += [(one, reason) for one in group]


class Pipeline:
    """Decides batches of requests; every collaborator comes in by argument."""

    def __init__(
        self,
        *,
        database: Engine,
        buyer: Buyer,
        publisher: Publisher,
        rules: Rules,
        provider: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._buyer = buyer
        self._publisher = publisher
        self._rules = rules
        self._provider = provider
        self._now = now
        self.giving_up = Event()
        """Set at shutdown: transactions stop being retried."""

    def run_batch(self, waiters: Sequence[Waiter]) -> BatchOutcome:
        """Decide a batch of one lane's requests: one look, one purchase, one transaction, its events."""
        batch = self._gather(waiters)
        known = self._look_up(batch)
        self._answer_without_asking(batch, known)
        purchase = self._ask(batch, known)
        self._answer_with(batch, purchase)
        self._decide(batch)
        self._store(batch, purchase)
        self._publish(batch)
        return batch.outcome

    def run_one(self, request: CheckRequest) -> CheckedRequest:
        """Decide one request now, in this thread; a passing fault is waited out until it expires."""
        waiter = Waiter(request)
        while True:
            try:
                outcome = self.run_batch([waiter])
            except StorageUnavailable:
                if request.expires_at is not None and self._now() > request.expires_at:
                    raise
                outcome = BatchOutcome(postponed=[Postponed(waiter, 0.5)])
            if outcome.decided:
                return outcome.decided[0][1]
            if outcome.rejected:
                raise ValueError(outcome.rejected[0][1])
            pause = max(outcome.postponed[0].seconds, outcome.pause_seconds, 0.2 if outcome.lost else 0.0)
            time.sleep(self._within(request, pause))

    def park(self, letters: Sequence[DeadLetter]) -> None:
        """Park items that could not be taken; returns once Postgres has them."""
        engine.transact_until_done(
            self._database, lambda to: dead_letters.add(to, letters), giving_up=self.giving_up
        )

    # -- the steps ----------------------------------------------------------------------------

    def _gather(self, waiters: Sequence[Waiter]) -> _Batch:
        batch = _Batch(new_id(), waiters[0].request.lane, self._now())
        for waiter in waiters:
            group = batch.by_key.setdefault(waiter.request.key, [])
            if group and not group[0].request.same_question(waiter.request.msisdn, waiter.request.operator):
                batch.outcome.rejected.append((waiter, CONFLICT))
            else:
                group.append(waiter)
        return batch

    def _look_up(self, batch: _Batch) -> _Known:
        msisdns = {waiter.request.msisdn for waiter in batch.waiters()} - {None}

        def look(connection: Connection) -> _Known:
            return _Known(
                gate.read(connection),
                ledger.find(connection, batch.by_key),
                port_records.read(connection, filter(None, msisdns)),
            )

        return engine.read(self._database, look)

    def _answer_without_asking(self, batch: _Batch, known: _Known) -> None:
        """Repeat what was decided before; answer by expiry, rule or record; the rest must be asked for."""
        for waiter in list(batch.waiters()):
            request = waiter.request
            row = known.rows.get(request.key)
            if row is not None:
                self._repeat(batch, waiter, row)
                continue
            finding = self._finding(waiter, known.records.get(request.msisdn or ""), batch.now)
            if finding is None:
                batch.asking.append(waiter)
            else:
                batch.findings[request.key] = finding

    @staticmethod
    def _repeat(batch: _Batch, waiter: Waiter, row: CheckedRequest) -> None:
        if waiter.request.same_question(row.msisdn, row.asked_operator):
            batch.known_rows[row.key] = row
        else:
            batch.reject(waiter, CONFLICT)

    def _finding(self, waiter: Waiter, record: PortRecord | None, now: datetime) -> Finding | NoAnswer | None:
        request = waiter.request
        if request.expires_at is not None and request.expires_at <= now:
            return NoAnswer.EXPIRED
        failure_class = self._failure_class(request)
        by_rule = answered_by_rule(request, failure_class=failure_class, not_asked=self._rules.not_asked)
        if by_rule is not None:
            return by_rule
        answered_from = self._rules.freshness.answered_from(
            request,
            record,
            failure_class=failure_class,
            now=now,
            # what another request bought since this one came is live to it
            shares_from=waiter.shares_from or request.received_at,
        )
        return None if answered_from is None or record is None else finding_of(record, answered_from)

    def _failure_class(self, request: CheckRequest) -> FailureClass | None:
        if request.lane is not Lane.SMS:
            return None
        return self._rules.failure_codes.classify(request.failure_code, request.operator)

    def _ask(self, batch: _Batch, known: _Known) -> Purchase | None:
        """Hold the numbers nobody has in flight, and buy them."""
        if not batch.asking:
            return None
        if known.closed_gate is not None:
            self._refuse_for_gate(batch)
            return None
        call, held = self._claim(batch)
        if not held:
            return None
        purchase = self._buyer.buy(call, held)
        batch.outcome.lost = purchase.lost
        if purchase.account_fault is not None:
            self._close_gate(str(purchase.account_fault))
        return purchase

    def _claim(self, batch: _Batch) -> tuple[Call, set[str]]:
        """Hold numbers for a call; those in flight elsewhere are waited for, or overtaken."""
        wanted = {waiter.request.msisdn for waiter in batch.asking if waiter.request.msisdn is not None}
        sent_at = self._now()
        call = Call(
            new_id(),
            batch.id,
            batch.lane,
            self._provider,
            sent_at,
            len(wanted),
            self._buyer.hold_seconds(len(wanted)),
        )
        overtaken = self._overtaken(batch)

        def claim(connection: Connection) -> tuple[set[str], dict[str, PortRecord], dict[str, datetime]]:
            held = calls.open_and_claim(connection, call, wanted, overtaken=overtaken)
            elsewhere = wanted - held
            holders = calls.holders(connection, elsewhere) if elsewhere else {}
            # Whoever held a number until just now has stored its record by now.
            return held, port_records.read(connection, wanted), holders

        held, records, holders = engine.read(self._database, claim)
        needless = self._answer_since(batch, records, held)
        self._wait_for(batch, wanted - held, holders)
        if needless:
            self._let_go(call, needless, nothing_left=held == needless)
        held = held - needless
        return replace(call, numbers=len(held)), held

    def _overtaken(self, batch: _Batch) -> set[str]:
        if batch.lane is not Lane.RECHARGE:
            return set()
        patience = self._rules.share_wait_seconds
        now = time.monotonic()
        return {
            waiter.request.msisdn
            for waiter in batch.asking
            if waiter.request.msisdn is not None
            and waiter.sharing_since is not None
            and now - waiter.sharing_since >= patience
        }

    def _answer_since(self, batch: _Batch, records: Mapping[str, PortRecord], held: set[str]) -> set[str]:
        """Answer from records that came while this batch was on its way; return numbers held needlessly."""
        still_asking = []
        for waiter in batch.asking:
            finding = self._finding(waiter, records.get(waiter.request.msisdn or ""), batch.now)
            if finding is None:
                still_asking.append(waiter)
            else:
                batch.findings[waiter.request.key] = finding
        batch.asking = still_asking
        return held - {waiter.request.msisdn or "" for waiter in still_asking}

    def _wait_for(self, batch: _Batch, elsewhere: set[str], holders: Mapping[str, datetime]) -> None:
        """Let requests wait for the calls that hold their numbers, and look again soon."""
        now = time.monotonic()
        waiting, batch.asking = (
            [waiter for waiter in batch.asking if waiter.request.msisdn in elsewhere],
            [waiter for waiter in batch.asking if waiter.request.msisdn not in elsewhere],
        )
        for waiter in waiting:
            holder_sent_at = holders.get(waiter.request.msisdn or "")
            for one in batch.by_key[waiter.request.key]:
                one.sharing_since = now if one.sharing_since is None else one.sharing_since
                if holder_sent_at is not None:
                    one.shares_from = min(holder_sent_at, one.request.received_at)
            batch.postpone(waiter, _SHARE_POLL_SECONDS)
        if any(now - (waiter.sharing_since or now) > _LONG_SHARE_SECONDS for waiter in waiting):
            engine.read(self._database, calls.give_up_overdue)

    def _let_go(self, call: Call, msisdns: set[str], *, nothing_left: bool) -> None:
        def release(connection: Connection) -> None:
            calls.release(connection, call.id, msisdns)
            if nothing_left:
                calls.discard(connection, call.id)

        engine.read(self._database, release)

    def _refuse_for_gate(self, batch: _Batch) -> None:
        """A recharge is told at once; an sms waits for the gate to open."""
        for waiter in batch.asking:
            if batch.lane is Lane.SMS:
                batch.postpone(waiter, _GATE_PAUSE_SECONDS)
            else:
                batch.findings[waiter.request.key] = NoAnswer.GATE_CLOSED
        batch.asking = []
        batch.outcome.pause_seconds = _GATE_PAUSE_SECONDS if batch.lane is Lane.SMS else 0.0

    def _close_gate(self, reason: str) -> None:
        newly = engine.transact_until_done(
            self._database,
            lambda to: gate.close(to, by=gate.BY_PROVIDER, reason=reason),
            giving_up=self.giving_up,
        )
        if newly:
            log.error("gate_closed", reason=reason, next_step="mend the account; it opens by itself")

    def _answer_with(self, batch: _Batch, purchase: Purchase | None) -> None:
        """Hand every waiter its number's answer; without one it waits again, or is decided without."""
        if purchase is None:
            return
        paid: set[str] = set()
        for waiter in batch.asking:
            msisdn = waiter.request.msisdn or ""
            bought = purchase.bought.get(msisdn)
            if bought is None:
                self._go_without(batch, waiter, purchase)
                continue
            # The first waiter of a number is the one who bought it.
            live = msisdn not in paid
            paid.add(msisdn)
            batch.findings[waiter.request.key] = _finding_bought(bought, live=live)
            if live:
                batch.call_ids[waiter.request.key] = bought.call.id
        batch.asking = []

    def _go_without(self, batch: _Batch, waiter: Waiter, purchase: Purchase) -> None:
        if purchase.account_fault is not None:
            if batch.lane is Lane.SMS:
                batch.postpone(waiter, _GATE_PAUSE_SECONDS)
                batch.outcome.pause_seconds = _GATE_PAUSE_SECONDS
            else:
                batch.findings[waiter.request.key] = NoAnswer.GATE_CLOSED
            return
        waiter.failures += 1
        waiter.bought += purchase.unanswered[waiter.request.msisdn or ""]
        if batch.lane is not Lane.SMS and waiter.failures >= _MOST_FAILURES:
            batch.findings[waiter.request.key] = NoAnswer.PROVIDER_FAILING
        elif waiter.bought >= MOST_PURCHASES:
            batch.reject(waiter, NEVER_ANSWERED)
        else:
            batch.postpone(waiter, 0.0)

    def _decide(self, batch: _Batch) -> None:
        decided_at = self._now()
        for key, finding in batch.findings.items():
            request = batch.by_key[key][0].request
            batch.rows.append(self._row(batch, request, finding, decided_at))

    def _row(
        self, batch: _Batch, request: CheckRequest, finding: Finding | NoAnswer, decided_at: datetime
    ) -> CheckedRequest:
        decision = decide(
            request,
            finding,
            failure_class=self._failure_class(request),
            not_asked=self._rules.not_asked,
            max_attempts=self._rules.max_attempts,
        )
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

    def _store(self, batch: _Batch, purchase: Purchase | None) -> None:
        """One transaction: records, changes, ledger, outbox mark, the calls' ends."""
        if not batch.rows and purchase is None:
            return
        records = [] if purchase is None else [_record(bought) for bought in purchase.bought.values()]
        ended = [] if purchase is None else purchase.ended

        def store(connection: Connection) -> dict[RequestKey, CheckedRequest]:
            batch.changes = self._store_records(connection, batch.id, records)
            added = ledger.add(connection, batch.rows)
            others = [row.key for row in batch.rows if row.key not in added]
            if batch.rows or batch.changes:
                outbox.add_batch(
                    connection,
                    batch.id,
                    lane=batch.lane,
                    decided_at=batch.now,
                    numbers=len({row.msisdn for row in batch.rows}),
                )
            for call in ended:
                _close(connection, call)
            return ledger.find(connection, others) if others else {}

        decided_elsewhere = engine.transact_until_done(self._database, store, giving_up=self.giving_up)
        # After a lost reply to COMMIT that is our own first run: then the relay marks the batch.
        batch.rows = [row for row in batch.rows if row.key not in decided_elsewhere]
        for row in decided_elsewhere.values():
            self._repeat(batch, batch.by_key[row.key][0], row)

    @staticmethod
    def _store_records(
        connection: Connection, batch_id: str, records: Sequence[PortRecord]
    ) -> list[PortChange]:
        if not records:
            return []
        stored = port_records.lock(connection, [record.msisdn for record in records])
        changes = [
            change
            for record in records
            if (change := observed_change(stored.get(record.msisdn), record, batch_id=batch_id)) is not None
        ]
        port_records.put(connection, [merged(stored.get(record.msisdn), record) for record in records])
        port_records.add_changes(connection, changes)
        return changes

    def _publish(self, batch: _Batch) -> None:
        """Send the events; what the broker does not confirm in time is the relay's."""
        rows = [*batch.rows, *batch.known_rows.values()]
        for row in rows:
            batch.outcome.decided += [(waiter, row) for waiter in batch.by_key[row.key]]
        outgoing = [events.of_check(row) for row in rows if row.lane is not Lane.DIRECT]
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

    def _within(self, request: CheckRequest, seconds: float) -> float:
        if request.expires_at is None:
            return seconds
        return max(0.0, min(seconds, (request.expires_at - self._now()).total_seconds()))


def _finding_bought(bought: Bought, *, live: bool) -> Finding:
    answer = bought.answer
    return Finding(
        status=answer.status,
        range_holder=answer.range_holder,
        current_operator=answer.current_operator,
        area=answer.area,
        observed_at=bought.call.sent_at,
        answered_from=AnsweredFrom.LIVE if live else AnsweredFrom.SHARED,
    )


def _record(bought: Bought) -> PortRecord:
    answer = bought.answer
    return PortRecord(
        msisdn=answer.msisdn,
        status=answer.status,
        range_holder=answer.range_holder,
        current_operator=answer.current_operator,
        area=answer.area,
        observed_at=bought.call.sent_at,
    )


def _close(connection: Connection, ended: EndedCall) -> None:
    calls.close_call(
        connection,
        ended.call.id,
        outcome=ended.outcome,
        answered_at=ended.answered_at,
        numbers=ended.call.numbers,
        billed=ended.billed,
    )
    calls.release(connection, ended.call.id, ended.msisdns)
