"""The one way a batch goes: known, asked, decided, stored, published. ``run_batch`` is the map.

Safe to run twice for the same request: its key has one ledger row for ever, its event one id, and a
number in flight is not bought again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain

from msgspec.structs import replace

from worker import logs, tracing
from worker.asking import Asking
from worker.batch import Batch
from worker.batching import BatchOutcome, Postponed, Waiter
from worker.errors import NotConfirmed, Rejected, StorageUnavailable
from worker.metrics import batches, messages
from worker.portability import events
from worker.portability.records import CheckedRequest, Finding, NoAnswer
from worker.portability.requests import CheckRequest, Lane
from worker.portability.rules import Rules
from worker.publisher import Publisher
from worker.purchase import Purchase
from worker.storage.dead_letters import DeadLetter
from worker.storage.store import Known, Settlement, Store

log = logs.get(__name__)

_NOTHING_FOUND = Finding()


class Pipeline:
    """Decides batches of requests; every collaborator comes in by argument."""

    def __init__(
        self,
        *,
        store: Store,
        asking: Asking,
        publisher: Publisher,
        rules: Rules,
        account: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._asking = asking
        self._publisher = publisher
        self._rules = rules
        self._account = account
        self._now = now

    def run_batch(
        self,
        waiters: Sequence[Waiter],
        *,
        asked: Callable[[], None] = lambda: None,
        told: Callable[[BatchOutcome], None] = lambda _outcome: None,
    ) -> BatchOutcome:
        """Decide a batch of one lane's requests: one look, one purchase, one transaction, its events.

        ``asked`` is called once no further call is made for the batch, nor for what it leaves asking;
        ``told`` is given the outcome before the events go out, for callers whom these do not concern.
        """
        batch = Batch.of(waiters, self._now())
        with tracing.batch(batch.id, batch.lane, (waiter.trace for waiter in waiters)):
            known = self._look_up(batch)
            self._answer_without_asking(batch, known)
            if batch.lane is not Lane.SMS and (batch.findings or batch.known_rows):
                batch.leave_asking()  # somebody waits for the answers that are there
            purchase = self._asking.ask(batch, known)
            if not batch.outcome.still_asking:
                asked()
            try:
                if purchase is not None and purchase.defect is not None:
                    raise purchase.defect  # noqa: TRY301 - the same as one of the rules
                self._decide(batch)
            except Exception:
                self._keep(batch, purchase)
                raise
            self._settle(batch, purchase)
            batches.settled(
                batch.lane, requests=len(waiters), rows=batch.rows.values(), repeated=len(batch.known_rows)
            )
            decided = batch.decided()
            told(batch.outcome)
            self._publish(batch, decided)
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
            pause = max(outcome.postponed[0].seconds, outcome.pause_seconds)
            if request.expires_at is not None:
                pause = min(pause, max(0.0, (request.expires_at - self._now()).total_seconds()))
            time.sleep(pause)

    def park(self, letters: Sequence[DeadLetter]) -> Mapping[str, CheckedRequest]:
        """Park items that could not be taken; returns once Postgres has them.

        Those of requests that are decided are not parked: their rows are returned, by the letters' ids.
        """
        decided = self._store.park(letters)
        messages.parked(letter.task for letter in letters if letter.id not in decided)
        return decided

    def give_up(self) -> None:
        """Shutdown: a batch that waits for Postgres waits no longer; its messages go back to the queue."""
        self._store.give_up()

    def _try_one(self, waiter: Waiter) -> BatchOutcome:
        try:
            return self.run_batch([waiter])
        except StorageUnavailable:
            expires_at = waiter.request.expires_at
            if expires_at is not None and self._now() > expires_at:
                raise
            return BatchOutcome(postponed=[Postponed(waiter, 0.5)])

    # -- the steps ----------------------------------------------------------------------------

    def _look_up(self, batch: Batch) -> Known:
        msisdns = {waiter.request.msisdn for waiter in batch.waiters() if waiter.request.msisdn is not None}
        letters: list[int] = []
        if batch.may_be_parked:
            waiters = chain.from_iterable(batch.by_key.values())
            letters = [one.letter_id for one in waiters if one.letter_id is not None]
        early = self._asking.early(batch)
        batch.records_later = early is None and self._asking.records_later(batch)
        look_up = partial(self._store.look_up, self._account, batch.lane, batch.by_key.keys())
        known = look_up(() if batch.records_later else msisdns, letters, early=early)
        if batch.records_later and not known.may_ask:  # then records are all that can answer
            batch.records_later = False
            known = look_up(msisdns, letters)
        return known

    def _answer_without_asking(self, batch: Batch, known: Known) -> None:
        """Repeat what was decided before; answer by expiry, rule or record; the rest must be asked for."""
        batch.park_again(known.parked)
        answered = 0
        for waiter in list(batch.waiters()):
            request = waiter.request
            row = known.rows.get(waiter.key)
            if row is not None:
                batch.repeat(waiter, row)
                continue
            record = known.records.get(request.msisdn or "")
            finding = self._rules.finding(request, record, now=batch.now, shares_from=waiter.shares_from)
            if finding is None:
                batch.asking.append(waiter)
            else:
                batch.found(waiter, finding)
                answered += record is not None
        if not batch.records_later:
            self._asking.records_answered(batch, answered)

    def _decide(self, batch: Batch) -> None:
        decided_at = self._now()
        for key, finding in batch.findings.items():
            batch.rows[key] = self._row(batch, batch.by_key[key][0], finding, decided_at)

    def _row(
        self, batch: Batch, waiter: Waiter, finding: Finding | NoAnswer, decided_at: datetime
    ) -> CheckedRequest:
        request, key = waiter.request, waiter.key
        decision = self._rules.decide(request, finding)
        found = finding if isinstance(finding, Finding) else _NOTHING_FOUND
        return CheckedRequest(  # by position: named, its fields take seven times as long
            request.source,
            request.lane,
            request.reference,
            request.attempt,
            request.msisdn,
            request.operator,
            request.failure_code,
            found.status,
            found.range_holder,
            found.current_operator,
            decision.target_operator,
            found.area,
            found.observed_at,
            decision.decision,
            decision.reason,
            found.answered_from,
            batch.id,
            batch.call_ids.get(key),
            events.event_id(key),
            request.received_at,
            decided_at,
        )

    def _settle(self, batch: Batch, purchase: Purchase | None) -> None:
        """One transaction: records, changes, ledger, outbox mark, the calls' ends."""
        if not batch.rows and purchase is None:
            return
        with tracing.step("commit", rows=len(batch.rows)):
            settled = self._store.settle(_settlement(batch, purchase))
        batch.changes = list(settled.changes)
        # After a lost reply to COMMIT that is our own first run: then the relay marks the batch.
        for key, row in settled.decided_before.items():
            batch.rows.pop(key, None)
            batch.repeat(batch.by_key[key][0], row)

    def _keep(self, batch: Batch, purchase: Purchase | None) -> None:
        """A defect ended the batch: what was paid for answers the same requests when they come again."""
        batch.rows = {}
        if purchase is not None:
            self._store.settle(_settlement(batch, purchase))

    def _publish(self, batch: Batch, decided: Sequence[CheckedRequest]) -> None:
        """Send the events; what the broker does not confirm in time is the relay's."""
        outgoing = [events.of_check(row) for row in decided if row.lane is not Lane.DIRECT]
        outgoing += [events.of_port_change(change) for change in batch.changes]
        if tracing.on():
            outgoing = _traced(outgoing, batch)
        try:
            with tracing.step("publish", events=len(outgoing)):
                self._publisher.publish(outgoing)
        except NotConfirmed as exc:
            log.warning("events_left_to_relay", batch_id=batch.id, events=len(outgoing), error=str(exc))
            return
        if batch.rows or batch.changes:
            self._mark_emitted(batch.id)

    def _mark_emitted(self, batch_id: str) -> None:
        try:
            self._store.mark_emitted(batch_id, self._now())
        except StorageUnavailable as exc:
            log.warning("batch_not_marked", batch_id=batch_id, error=str(exc))  # sent again, recognisably


def _traced(outgoing: Iterable[events.Event], batch: Batch) -> list[events.Event]:
    """Let events continue the traces of the messages they answer, and a change's the batch's."""
    spans = {events.event_id(key): group[0].trace for key, group in batch.by_key.items()}
    return [replace(event, traceparent=tracing.traceparent(spans.get(event.id))) for event in outgoing]


def _settlement(batch: Batch, purchase: Purchase | None) -> Settlement:
    return Settlement(
        batch.id,
        batch.lane,
        batch.now,
        list(batch.rows.values()),
        learned=[each.record() for each in purchase.bought.values()] if purchase else (),
        ended=purchase.ended if purchase else (),
        call_id=purchase.call_id if purchase else None,
        letters=batch.letters(),
        without_record=batch.without_record,
    )
