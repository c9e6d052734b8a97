"""The store in memory: what ``PostgresStore`` answers, without Postgres.

Each statement, or transaction, goes through ``run``, where a simulation lets others have their turn, and
lets Postgres fail before or after the commit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from worker.errors import StorageUnavailable
from worker.portability import changes, letter_ids
from worker.portability.records import CheckedRequest, PortChange, PortRecord
from worker.portability.requests import Lane, RequestKey
from worker.storage.breaker import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Breaker
from worker.storage.budget import Budget
from worker.storage.calls import Call, EarlyClaim, EndedCall
from worker.storage.dead_letters import DeadLetter, answering
from worker.storage.gate import EVERY_ACCOUNT, ClosedGate
from worker.storage.presence import Absences
from worker.storage.store import Claim, Known, Settled, Settlement

T = TypeVar("T")


@dataclass(slots=True)
class CallRow:
    """A row of ``lookup_call``."""

    call: Call
    until: datetime
    outcome: str = "calling"
    answered_at: datetime | None = None
    billed: int | None = None
    numbers: int = 0
    unanswered: list[str] | None = None
    overtaken: list[str] | None = None
    overtaken_from: list[str] | None = None
    reserved: int | None = None
    budget_day: date | None = None

    @property
    def claimed_at(self) -> datetime:
        """When it took its numbers; ``sent_at`` is read before, and need not keep their order."""
        return self.until - timedelta(seconds=self.call.hold_seconds)


@dataclass(slots=True)
class BreakerRow:
    """A row of ``lane_breaker``."""

    lost_in_a_row: int
    pauses: int
    next_call_at: datetime
    probing_until: datetime


@dataclass(slots=True)
class BatchRow:
    """A row of ``lookup_batch``."""

    lane: Lane
    decided_at: datetime
    emitted_at: datetime | None = None


@dataclass(slots=True)
class Tables:
    """What Postgres keeps, for every worker."""

    now: Callable[[], datetime]
    ledger: dict[RequestKey, CheckedRequest] = field(default_factory=dict)
    records: dict[str, PortRecord] = field(default_factory=dict)
    changes: dict[tuple[str, datetime], PortChange] = field(default_factory=dict)
    batches: dict[str, BatchRow] = field(default_factory=dict)
    calls: dict[str, CallRow] = field(default_factory=dict)
    in_flight: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    gates: dict[str, ClosedGate] = field(default_factory=dict)
    breakers: dict[tuple[str, Lane], BreakerRow] = field(default_factory=dict)
    days: dict[date, int] = field(default_factory=dict)
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    # owners whose presence lock is held
    present: set[int] = field(default_factory=set)
    # batches a relay has locked
    locked: set[str] = field(default_factory=set)
    owners: Any = field(default_factory=lambda: itertools.count(1))

    def gate(self, account: str) -> ClosedGate | None:
        """The gate that keeps an account from buying; one closed by hand speaks first."""
        return self.gates.get(EVERY_ACCOUNT) or self.gates.get(account)

    def execute(self, _query: Any) -> list[tuple[int]]:
        """Owners of open calls whose locks are missing: the one query of ``Absences``."""
        owners = {row.call.owner for row in self.calls.values() if row.outcome == "calling"}
        return [(owner,) for owner in sorted(owners - self.present)]


def _at_once(_name: str, work: Callable[[], T]) -> T:
    return work()


class MemoryStore:
    """One process's view of the tables; see ``worker.storage.store.Store`` for what each method promises."""

    def __init__(
        self,
        tables: Tables,
        *,
        daily: Budget = Budget(),  # noqa: B008 - frozen
        run: Callable[[str, Callable[[], Any]], Any] = _at_once,
        sleep: Callable[[float], None] = lambda _seconds: None,
        clock: Callable[[], float] = lambda: 0.0,
        jitter: float = 0.75,
    ) -> None:
        self.tables = tables
        self._budget = daily
        self._run = run
        self._sleep = sleep
        self._jitter = jitter
        self._absences = Absences(clock)
        self._giving_up = False
        self.owner = next(tables.owners)
        tables.present.add(self.owner)

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
        tables = self.tables
        claimed = None
        if early is not None and not self._budget.daily:
            self._require_presence()
            claimed = self._run("claim early", lambda: self._hold_early(early, account))
        gate = self._run("read gate", lambda: tables.gate(account))
        breaker = self._run("read breaker", lambda: self._breaker(account, lane))
        rows = self._run("find keys", lambda: self._find(keys))
        records = self._run("read records", lambda: self._records(msisdns))
        parked = self._parked(letters)
        return Known(gate, breaker, rows, records, parked, claimed)

    def claim(
        self, call: Call, keys: Mapping[str, Sequence[RequestKey]], *, overtaken: Collection[str]
    ) -> Claim:
        self._require_presence()
        call = replace(call, owner=self.owner)
        held, unaffordable = self._run("claim", lambda: self._hold(call, keys, overtaken))
        return self._run("read after claim", lambda: self._after_claim(call, keys, held, unaffordable))

    def let_go(self, call_id: str, msisdns: Collection[str], *, forget_call: bool) -> None:
        def work() -> None:
            self._give_back(call_id, msisdns)
            self._release(call_id, msisdns)
            if forget_call:
                self._settle_budget(call_id, 0)
                self._discard(call_id)

        self._run("let go", work)

    def split(self, call: Call, msisdns: Sequence[str], *, from_id: str) -> set[str]:
        call = replace(call, owner=self.owner)

        def work() -> set[str]:
            until = self.tables.now() + timedelta(seconds=call.hold_seconds)
            moved = {msisdn for msisdn in msisdns if self._holder(msisdn) == from_id}
            self.tables.in_flight.update(dict.fromkeys(moved, (call.id, until)))
            if moved:
                self.tables.calls[call.id] = CallRow(call, until, numbers=len(moved))
            return moved

        return self._run("split", work)  # type: ignore[no-any-return]

    def give_up_dead_calls(self) -> int:
        return self._run("give up dead calls", self._give_up)

    def close_gate(self, account: str, *, by: str, reason: str) -> bool:
        return self._until_done("close gate", lambda: self._close_gate(account, by, reason))

    def may_probe(self, account: str, lane: Lane, *, hold_seconds: float) -> datetime | None:
        return self._run("may probe", lambda: self._probe(account, lane, hold_seconds))

    def call_ended(self, account: str, lane: Lane, *, lost: bool, probe: datetime | None = None) -> None:
        self._run("call ended", lambda: self._call_ended(account, lane, lost=lost, probe=probe))

    def settle(self, settlement: Settlement) -> Settled:
        return self._until_done("settle", lambda: self._settle(settlement))

    def mark_emitted(self, batch_id: str, at: datetime) -> None:
        self._run("mark emitted", lambda: self._mark([batch_id], at))

    def park(self, letters: Sequence[DeadLetter]) -> dict[str, CheckedRequest]:
        def work() -> dict[str, CheckedRequest]:
            rows = answering(self.tables.ledger, letters)
            for letter in letters:
                if letter.id not in rows:
                    self.tables.letters.setdefault(letter.id, letter)
            return rows

        return self._until_done("park", work)

    def relay(
        self,
        send: Callable[[Sequence[CheckedRequest], Sequence[PortChange]], None],
        *,
        older_than_seconds: float,
        most: int,
        now: Callable[[], datetime],
    ) -> int:
        tables = self.tables
        before = tables.now() - timedelta(seconds=older_than_seconds)
        stale = sorted(
            (batch.decided_at, batch_id)
            for batch_id, batch in tables.batches.items()
            if batch.emitted_at is None and batch.decided_at < before and batch_id not in tables.locked
        )[:most]
        ids = [batch_id for _, batch_id in stale]
        tables.locked.update(ids)
        try:
            for batch_id in ids:
                send(self.rows_of(batch_id), self.changes_of(batch_id))
            if ids:
                self._run("relay", lambda: self._mark(ids, now()))
        finally:
            tables.locked.difference_update(ids)
        return len(ids)

    def give_up(self) -> None:
        self._giving_up = True

    def close(self) -> None:
        self.tables.present.discard(self.owner)

    def rows_of(self, batch_id: str) -> list[CheckedRequest]:
        return sorted(
            (row for row in self.tables.ledger.values() if row.batch_id == batch_id), key=lambda row: row.key
        )

    def changes_of(self, batch_id: str) -> list[PortChange]:
        return sorted(
            (each for each in self.tables.changes.values() if each.batch_id == batch_id),
            key=lambda change: change.msisdn,
        )

    # -- statements ---------------------------------------------------------------------------

    def _until_done(self, name: str, work: Callable[[], T]) -> T:
        pause = 0.05
        while True:
            try:
                return self._run(name, work)  # type: ignore[no-any-return]
            except StorageUnavailable:
                if self._giving_up:
                    raise
                self._sleep(pause)
                pause = min(2.0, 2 * pause)

    def _require_presence(self) -> None:
        if self.owner not in self.tables.present:
            raise StorageUnavailable("no connection to be seen by")

    def _find(self, keys: Iterable[RequestKey]) -> dict[RequestKey, CheckedRequest]:
        ledger = self.tables.ledger
        return {key: ledger[key] for key in keys if key in ledger}

    def _parked(self, letters: Iterable[int]) -> dict[int, str]:
        ranges = letter_ids.messages(letters)
        parked = {UUID(id_).int: letter.reason for id_, letter in self.tables.letters.items()}
        return {id_: why for id_, why in parked.items() if any(low <= id_ <= high for low, high in ranges)}

    def _records(self, msisdns: Iterable[str]) -> dict[str, PortRecord]:
        records = self.tables.records
        return {msisdn: records[msisdn] for msisdn in msisdns if msisdn in records}

    def _breaker(self, account: str, lane: Lane) -> Breaker | None:
        row = self.tables.breakers.get((account, lane))
        if row is None:
            return None
        pause = (max(row.next_call_at, row.probing_until) - self.tables.now()).total_seconds()
        return Breaker(row.lost_in_a_row, row.pauses, max(0.0, pause))

    def _holder(self, msisdn: str) -> str | None:
        held = self.tables.in_flight.get(msisdn)
        return None if held is None else held[0]

    def _hold(
        self, call: Call, keys: Mapping[str, Sequence[RequestKey]], overtaken: Collection[str]
    ) -> tuple[set[str], set[str]]:
        tables = self.tables
        until = tables.now() + timedelta(seconds=call.hold_seconds)
        wanted = [each for each in keys if each not in tables.in_flight or each in overtaken]
        if not wanted:
            return set(), set()
        row = tables.calls[call.id] = CallRow(call, until)
        granted = self._take(call, len(wanted)) if self._budget.daily else len(wanted)
        held, unaffordable = wanted[:granted], wanted[granted:]
        if not held:
            self._discard(call.id)
        row.numbers = len(held)
        row.overtaken = [msisdn for msisdn in held if msisdn in tables.in_flight] or None
        row.overtaken_from = [tables.in_flight[msisdn][0] for msisdn in row.overtaken or ()] or None
        for msisdn in held:
            tables.in_flight[msisdn] = (call.id, until)
        return set(held), set(unaffordable)

    def _hold_early(self, early: EarlyClaim, account: str) -> EarlyClaim | None:
        tables, call = self.tables, replace(early.call, owner=self.owner)
        record = tables.records.get(early.msisdn)
        young = record is not None and record.observed_at > early.unless_observed_since
        stopped = tables.gate(account) is not None or (account, call.lane) in tables.breakers
        parked = early.letter_id is not None and letter_ids.written(early.letter_id) in tables.letters
        if stopped or young or parked or early.key in tables.ledger:
            return None
        held, _ = self._hold(call, {early.msisdn: [early.key]}, ())
        return early if held else None

    def _after_claim(
        self, call: Call, keys: Mapping[str, Sequence[RequestKey]], held: set[str], unaffordable: set[str]
    ) -> Claim:
        holders = {}
        for msisdn in keys.keys() - held - unaffordable:
            row = self.tables.calls.get(self._holder(msisdn) or "")
            if row is not None:
                holders[msisdn] = row.call.sent_at
        records = self._records(keys)
        return Claim(
            held,
            unaffordable,
            records,
            holders,
            self._find([key for msisdn in records for key in keys[msisdn]]),
        )

    def _give_up(self) -> int:
        tables, now = self.tables, self.tables.now()
        gone = self._absences.gone(tables)  # type: ignore[arg-type]
        open_calls = {call_id for call_id, row in tables.calls.items() if row.outcome == "calling"}
        given_up = {
            call_id
            for call_id in open_calls
            if tables.calls[call_id].until < now or tables.calls[call_id].call.owner in gone
        }
        for call_id in given_up:
            held = [msisdn for msisdn, (holder, _) in tables.in_flight.items() if holder == call_id]
            taken = [
                msisdn
                for row in tables.calls.values()
                for msisdn, holder in zip(row.overtaken or (), row.overtaken_from or (), strict=True)
                if holder == call_id
            ]
            tables.calls[call_id].outcome = "lost"
            tables.calls[call_id].unanswered = sorted({*held, *taken}) or None
        let_go = [
            msisdn
            for msisdn, (holder, until) in tables.in_flight.items()
            if holder in given_up or (until < now and holder not in open_calls)
        ]
        for msisdn in let_go:
            del tables.in_flight[msisdn]
        return len(let_go)

    def _close_gate(self, account: str, by: str, reason: str) -> bool:
        if account in self.tables.gates:
            return False
        self.tables.gates[account] = ClosedGate(account, self.tables.now(), by, reason)
        return True

    def _probe(self, account: str, lane: Lane, hold_seconds: float) -> datetime | None:
        row, now = self.tables.breakers.get((account, lane)), self.tables.now()
        if row is None or row.next_call_at > now or row.probing_until > now:
            return None
        row.probing_until = now + timedelta(seconds=hold_seconds)
        return row.probing_until

    def _call_ended(self, account: str, lane: Lane, *, lost: bool, probe: datetime | None) -> None:
        breakers, now = self.tables.breakers, self.tables.now()
        if not lost:
            breakers.pop((account, lane), None)
            return
        row = breakers.get((account, lane))
        if row is None:
            pause = timedelta(seconds=FIRST_PAUSE_SECONDS * self._jitter)
            breakers[account, lane] = BreakerRow(1, 1, now + pause, now)
            return
        row.lost_in_a_row += 1
        if row.probing_until == probe:
            row.probing_until = now
        if row.next_call_at <= now:
            pause_seconds = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(row.pauses, 20))
            row.next_call_at = now + timedelta(seconds=self._jitter * pause_seconds)
            row.pauses += 1

    def _settle(self, settlement: Settlement) -> Settled:
        tables = self.tables
        observed = self._learn(settlement)
        added = [row for row in settlement.rows if row.key not in tables.ledger]
        tables.ledger.update({row.key: row for row in added})
        decided = {row.key for row in added}
        for letter, key in settlement.letters.items():
            if key in decided:
                tables.letters.pop(letter_ids.written(letter), None)
        if added or observed:
            tables.batches.setdefault(settlement.batch_id, BatchRow(settlement.lane, settlement.decided_at))
        for ended in settlement.ended:
            self._close_call(ended)
        if self._budget.daily and settlement.call_id is not None:
            spent = sum(len(call.unanswered) + (call.billed or 0) for call in settlement.ended)
            self._settle_budget(settlement.call_id, spent)
        before = {row.key for row in settlement.rows} - {row.key for row in added}
        return Settled(self._find([row.key for row in settlement.rows if row.key in before]), observed)

    def _learn(self, settlement: Settlement) -> list[PortChange]:
        tables = self.tables
        observed = []
        for new in settlement.learned:
            old = tables.records.get(new.msisdn)
            change = changes.observed_change(old, new, batch_id=settlement.batch_id)
            if change is not None:
                observed.append(change)
                tables.changes.setdefault((change.msisdn, change.observed_before), change)
            self._put(changes.merged(old, new))
        return observed

    def _put(self, record: PortRecord) -> None:
        old = self.tables.records.get(record.msisdn)
        if old is None or old.observed_at < record.observed_at:
            self.tables.records[record.msisdn] = record

    def _close_call(self, ended: EndedCall) -> None:
        row = self.tables.calls.get(ended.call.id)
        if row is not None:
            row.outcome = row.outcome if row.outcome == "lost" else ended.outcome
            row.answered_at, row.billed, row.numbers = ended.answered_at, ended.billed, ended.call.numbers
            row.unanswered = (
                row.unanswered if row.unanswered is not None else sorted(ended.unanswered) or None
            )
        self._release(ended.call.id, ended.msisdns)

    def _release(self, call_id: str, msisdns: Iterable[str]) -> None:
        for msisdn in msisdns:
            if self._holder(msisdn) == call_id:
                del self.tables.in_flight[msisdn]

    def _give_back(self, call_id: str, msisdns: Iterable[str]) -> None:
        """Let an overtaken number be its call's again, where that goes on."""
        mine = self.tables.calls.get(call_id)
        if mine is None:
            return
        came_from = dict(zip(mine.overtaken or (), mine.overtaken_from or (), strict=True))
        for msisdn in msisdns:
            before = self.tables.calls.get(came_from.get(msisdn, ""))
            if self._holder(msisdn) == call_id and before is not None and before.outcome == "calling":
                self.tables.in_flight[msisdn] = (before.call.id, before.until)

    def _discard(self, call_id: str) -> None:
        row = self.tables.calls.get(call_id)
        if row is not None and row.outcome == "calling":
            del self.tables.calls[call_id]

    def _mark(self, batch_ids: Iterable[str], at: datetime) -> None:
        for batch_id in batch_ids:
            batch = self.tables.batches.get(batch_id)
            if batch is not None and batch.emitted_at is None:
                batch.emitted_at = at

    def _take(self, call: Call, wanted: int) -> int:
        day = self.tables.now().astimezone(ZoneInfo(self._budget.timezone)).date()
        taken = self.tables.days.setdefault(day, 0)
        granted = max(0, min(wanted, self._budget.limit(call.lane) - taken))
        if granted:
            self.tables.days[day] += granted
            row = self.tables.calls[call.id]
            row.reserved, row.budget_day = granted, day
        return granted

    def _settle_budget(self, call_id: str, spent: int) -> None:
        row = self.tables.calls.get(call_id)
        if row is None or row.reserved is None or row.budget_day is None:
            return
        self.tables.days[row.budget_day] += spent - row.reserved
        row.reserved = None
