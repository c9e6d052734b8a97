"""What must hold at every step, and once all is quiet; a check sees the seams, never the code under test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.simulation.memory_store import Tables
from tests.simulation.schedule import Process, Schedule, ViolationError
from worker.batch import CONFLICT
from worker.batching import Waiter
from worker.portability import events
from worker.portability.events import Event
from worker.portability.records import AnsweredFrom, Status
from worker.portability.requests import Lane, RequestKey
from worker.storage.store import Settlement

BOUGHT_AT_MOST = 3
PROBE_HOLD = timedelta(seconds=8)


@dataclass(slots=True)
class OpenCall:
    """A call at the provider."""

    id: str
    process: Process
    lane: Lane
    # when it was granted a probe, by the wall clock, which Postgres goes by
    granted: datetime
    probing: bool
    waiters: Sequence[Waiter]


@dataclass(frozen=True, slots=True)
class Bill:
    """One number billed once."""

    call_id: str
    sent_at: datetime


@dataclass(slots=True)
class Item:
    """One item a producer was promised to have settled."""

    # None where it cannot be read
    key: RequestKey | None
    question: tuple[str | None, str | None]
    letter_id: str
    deliveries: int = 0


@dataclass
class Invariants:
    """Watches one run."""

    schedule: Schedule
    tables: Tables
    subscribers: Mapping[str, Any]
    daily_budget: int
    open_calls: dict[str, OpenCall] = field(default_factory=dict)
    bills: dict[str, list[Bill]] = field(default_factory=lambda: defaultdict(list))
    billed_by: Counter[str] = field(default_factory=Counter)
    billed_in_all: int = 0
    events: dict[str, bytes] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    bought_for: Counter[Waiter] = field(default_factory=Counter)
    items: list[Item] = field(default_factory=list)
    poisonous: set[str] = field(default_factory=set)
    troubled: set[str] = field(default_factory=set)
    # when the call was sent that a request waited for first
    waited_for: dict[Waiter, datetime] = field(default_factory=dict)

    def violated(self, what: str) -> None:
        self.schedule.note(f"!!! {what}")
        raise ViolationError(what)

    # -- the provider -------------------------------------------------------------------------

    def call_starts(self, process: Process, msisdns: Sequence[str]) -> str:
        """A call leaves: it is named, its numbers are held, and neither gate nor breaker forbids it."""
        notes = self.schedule.notes()
        ids = {notes.get("calls", {}).get(msisdn) for msisdn in msisdns}
        if len(ids) != 1 or None in ids:
            self.violated(f"a call was not named before it was made: {list(msisdns)} belong to {ids}")
        (call_id,) = ids
        row = self.tables.calls.get(call_id)
        if row is None:
            self.violated("a call is made whose row is not there")
        assert row is not None
        for msisdn in msisdns:
            holder = self.tables.in_flight.get(msisdn, (None,))[0]
            if holder != call_id and row.outcome != "lost" and not self._overtaken(msisdn, call_id):
                self.violated(f"{msisdn} is asked for by a call that does not hold it")
            if notes["decided"].issuperset(notes["keys"][msisdn]):
                self.violated(f"{msisdn} is bought for requests that had their answer")
        if notes["gate_closed"]:
            self.violated("a call starts although its batch saw the gate closed")
        lane = row.call.lane
        if notes["probing"]:
            if len(msisdns) > 1:
                self.violated("a lane that probes asks for more than one number")
            # a process that stood still since it was granted its probe comes after the other's time
            if self._in_time(notes["granted"]) and any(
                one.probing and one.lane is lane and self._in_time(one.granted)
                for one in self.open_calls.values()
            ):
                self.violated("two probes of a lane are under way at once")
        self.open_calls[call_id] = OpenCall(
            call_id,
            process,
            lane,
            notes.get("granted", self.schedule.now()),
            notes["probing"],
            _of_one_question(notes["waiters"]),
        )
        return str(call_id)

    def _in_time(self, granted: datetime) -> bool:
        return self.schedule.now() - granted < PROBE_HOLD

    def lane_is_well(self, lane: Lane) -> None:
        """The provider answered another call of the lane: who still probes is one caller among others."""
        for call in self.open_calls.values():
            if call.lane is lane:
                call.probing = False

    def call_over(self, call_id: str) -> None:
        self.open_calls.pop(call_id, None)

    def billed(self, call_id: str, msisdn: str) -> None:
        """A number is billed: the first time, or for a reason that is listed."""
        call, row = self.open_calls[call_id], self.tables.calls[call_id]
        bills = self.bills[msisdn]
        if bills and not self._explained(bills[-1], call, msisdn):
            self.violated(f"{msisdn} is billed a second time, and nothing listed says why")
        bills.append(Bill(call_id, row.call.sent_at))
        self.billed_by[call_id] += 1
        self.billed_in_all += 1
        for waiter in call.waiters:
            if waiter.request.msisdn == msisdn:
                self.bought_for[waiter] += 1
                if self.bought_for[waiter] > BOUGHT_AT_MOST:
                    self.violated(f"{msisdn} is bought a fourth time for one request")
        if self.daily_budget and self.billed_in_all > sum(self.tables.days.values()):
            self.violated("more was billed than was taken from the budget")

    def _explained(self, before: Bill, call: OpenCall, msisdn: str) -> bool:
        if self._listed_lost(before.call_id, msisdn) or self._listed_lost(call.id, msisdn):
            return True
        if self._overtaken(msisdn, before.call_id) or self._overtaken(msisdn, call.id):
            return True
        # somebody asks who came after that call and did not wait for it: the rules judge an answer's age
        return any(
            min(waiter.request.received_at, self.waited_for.get(waiter, waiter.request.received_at))
            > before.sent_at
            for waiter in call.waiters
            if waiter.request.msisdn == msisdn
        )

    def _listed_lost(self, call_id: str, msisdn: str) -> bool:
        row = self.tables.calls.get(call_id)
        return row is not None and row.outcome == "lost" and msisdn in (row.unanswered or ())

    def _overtaken(self, msisdn: str, call_id: str) -> bool:
        """Whether the call overtook another for the number, or another listed call overtook it."""
        row = self.tables.calls[call_id]
        return msisdn in (row.overtaken or ()) or any(
            msisdn in (other.overtaken or ()) and other.claimed_at >= row.claimed_at
            for other in self.tables.calls.values()
            if other is not row
        )

    # -- Postgres -----------------------------------------------------------------------------

    def claimed(self, held: set[str], before: Mapping[str, Any], overtaken: Any, lane: Lane) -> None:
        for msisdn in held & before.keys():
            if msisdn not in overtaken or lane is not Lane.RECHARGE:
                self.violated(f"{msisdn} is taken from a call in flight, and not overtaken")
        self.within_budget()

    def waits_for(self, waiters: Sequence[Waiter], holders: Mapping[str, datetime]) -> None:
        """Requests wait for calls in flight."""
        for waiter in waiters:
            sent_at = holders.get(waiter.request.msisdn or "")
            if sent_at is not None:
                self.waited_for.setdefault(waiter, sent_at)

    def given_up(self, call_ids: Sequence[str]) -> None:
        """Calls are marked as lost whose processes are gone, or whose time is up."""
        for call_id in call_ids:
            row = self.tables.calls[call_id]
            if row.call.owner in self.tables.present and row.until >= self.tables.now():
                self.violated("a call is given up while its process lives and its time is not up")

    def within_budget(self) -> None:
        if self.daily_budget and any(taken > self.daily_budget for taken in self.tables.days.values()):
            self.violated(f"the budget is overdrawn: {self.tables.days}")
        if any(taken < 0 for taken in self.tables.days.values()):
            self.violated("more was given back to the budget than was taken")

    def settled(self, settlement: Settlement, before: Mapping[str, Any]) -> None:
        """Records were stored: each is true for its moment, and none was replaced by an older one."""
        self.within_budget()
        for learned in settlement.learned:
            record, old = self.tables.records[learned.msisdn], before.get(learned.msisdn)
            if old is not None and record.observed_at < old.observed_at:
                self.violated(f"the record of {learned.msisdn} went back to an older observation")
            if old is not None and record.observed_at == old.observed_at and record != old:
                self.violated(f"the record of {learned.msisdn} was changed without a later observation")
            if record.status in {Status.NOT_PORTED, Status.PORTED}:
                truth = self.subscribers[learned.msisdn].operators_since(record.observed_at)
                if record.current_operator not in truth:
                    self.violated(f"the record of {learned.msisdn} says {record.current_operator}: {truth}")
        for row in settlement.rows:
            if row.event_id != events.event_id(row.key):
                self.violated("an event's id does not follow from its key")

    def marked(self, batch_id: str) -> None:
        """A batch is marked as emitted: the broker confirmed every event of it."""
        rows = [row for row in self.tables.ledger.values() if row.batch_id == batch_id]
        ids = [row.event_id for row in rows]
        ids += [each.event_id for each in self.tables.changes.values() if each.batch_id == batch_id]
        if not self.confirmed.issuperset(ids):
            self.violated("a batch is marked as emitted whose events were not all confirmed")

    # -- the broker ---------------------------------------------------------------------------

    def event_sent(self, event: Event) -> None:
        """An event reaches the broker: its row is committed, and it is what it was before, byte by byte."""
        body = self.events.setdefault(event.id, event.body)
        if body != event.body:
            self.violated("an event was sent twice with different bytes")
        if event.type == events.NUMBER_PORTED:
            known = {each.event_id: each for each in self.tables.changes.values()}.get(event.id)
            expected = None if known is None else events.of_port_change(known).body
        else:
            row = {row.event_id: row for row in self.tables.ledger.values()}.get(event.id)
            expected = None if row is None else events.of_check(row).body
        if expected is None:
            self.violated("an event was sent whose row is not committed")
        if expected != event.body:
            self.violated("an event does not say what its row says")

    def acknowledged(self, items: Sequence[Item]) -> None:
        """A message is acknowledged: each item has its row or dead letter, and its event is on its way."""
        for item in items:
            if item.letter_id in self.tables.letters:
                continue
            row = self.tables.ledger.get(item.key) if item.key is not None else None
            if row is None:
                self.violated("a message is acknowledged before its items are settled")
            assert row is not None
            if (row.msisdn, row.asked_operator) != item.question:
                self.violated("a message is acknowledged though its item contradicts the row of its key")
            batch = self.tables.batches.get(row.batch_id)
            if row.event_id not in self.confirmed and (batch is None or batch.emitted_at is not None):
                self.violated("a message is acknowledged whose event nobody will send")

    # -- once all is quiet --------------------------------------------------------------------

    def all_quiet(self) -> None:
        tables = self.tables
        for item in self.items:
            self._settled_once(item)
        known = {item.key for item in self.items if item.key is not None}
        if not known.issuperset(tables.ledger):
            self.violated("a row for a request nobody sent")
        for row in tables.ledger.values():
            if row.event_id not in self.events:
                self.violated("a row without its event")
        for change in tables.changes.values():
            if change.event_id not in self.events:
                self.violated("a change of operator without its event")
        for batch in tables.batches.values():
            if batch.emitted_at is None:
                self.violated("a batch whose events are still unsent")
        if tables.in_flight:
            self.violated(f"numbers are still held: {sorted(tables.in_flight)}")
        self._calls_add_up()

    def _settled_once(self, item: Item) -> None:
        letter = item.letter_id in self.tables.letters
        row = None if item.key is None else self.tables.ledger.get(item.key)
        answers = row is not None and (row.msisdn, row.asked_operator) == item.question
        if not letter and not answers:
            self.violated(f"an item was lost: {item.key}")
        if letter and answers:
            reason = self.tables.letters[item.letter_id].reason
            # another message of its key may be answered where this one was given up
            twins = sum(other.key == item.key for other in self.items)
            if reason == CONFLICT or twins == 1:
                self.violated(f"an item has a row and a dead letter: {item.key}, {reason[:60]}")
        if row is not None and row.msisdn is not None and row.msisdn not in self.poisonous | self.troubled:
            if row.status is Status.INVALID and self.subscribers[row.msisdn].code != -3:
                self.violated(f"a good number was decided invalid: {row.msisdn}")
            if row.answered_from in {AnsweredFrom.LIVE, AnsweredFrom.SHARED} and row.observed_at is None:
                self.violated("an answer without the time of its observation")
        if letter and item.key is not None:
            reason = self.tables.letters[item.letter_id].reason
            if "refused this number" in reason and item.question[0] not in self.poisonous | self.troubled:
                self.violated(f"a good number was given up for a bad one: {item.question[0]}")

    def _calls_add_up(self) -> None:
        exact = True
        may_have_been = 0
        for call_id, row in self.tables.calls.items():
            if row.outcome == "calling":
                self.violated("a call is still open")
            billed = self.billed_by[call_id]
            if row.outcome == "lost":
                exact = False
                may_have_been += row.numbers
                unlisted = [
                    msisdn
                    for msisdn, bills in self.bills.items()
                    if any(bill.call_id == call_id for bill in bills)
                    and not self._listed_lost(call_id, msisdn)
                    and not self._overtaken(msisdn, call_id)
                ]
                if len(unlisted) > (row.billed or 0):
                    self.violated(f"{unlisted} were billed in a lost call that does not list them")
            elif billed != (row.billed or 0):
                self.violated(f"a call says {row.billed} numbers were billed, the provider says {billed}")
        if set(self.billed_by) - set(self.tables.calls):
            self.violated("a call was billed that is not listed")
        if self.daily_budget:
            taken = sum(self.tables.days.values())
            if taken < self.billed_in_all or taken > self.billed_in_all + may_have_been:
                self.violated(f"{taken} numbers were taken from the budget, {self.billed_in_all} billed")
            if exact and taken != self.billed_in_all:
                self.violated(f"the budget is not exact: {taken} taken, {self.billed_in_all} billed")


def _of_one_question(waiters: Sequence[Waiter]) -> list[Waiter]:
    """Those a batch buys for: one that contradicts an earlier one of its key waits for that one's row."""
    first: dict[RequestKey, Waiter] = {}
    for waiter in waiters:
        first.setdefault(waiter.request.key, waiter)
    return [
        waiter
        for waiter in waiters
        for asked in [first[waiter.request.key].request]
        if waiter.request.same_question(asked.msisdn, asked.operator)
    ]
