"""Random sequences of operations: the store in memory answers what Postgres answers, and keeps the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.integration.stores import InMemory, Stores, in_postgres
from tests.integration.test_store import ACCOUNT, A, B, C, D, a_call, a_key, a_record, a_row, an_id
from worker.portability.records import PortRecord, Status
from worker.portability.requests import Lane
from worker.storage.budget import Budget
from worker.storage.calls import ANSWERED, LOST, REFUSED, Call, EarlyClaim, EndedCall
from worker.storage.dead_letters import DeadLetter
from worker.storage.gate import EVERY_ACCOUNT
from worker.storage.store import Known, Settlement, Store

NUMBERS, REFERENCES = (A, B, C, D), ("o-1", "o-2", "o-3", "o-4")
_PROCESSES = 3

_process = st.integers(0, _PROCESSES - 1)
_earlier = st.integers(0, 99)
_number, _reference = st.sampled_from(NUMBERS), st.sampled_from(REFERENCES)
_numbers = st.lists(st.sampled_from(NUMBERS), unique=True, min_size=1)
_some_numbers = st.lists(st.sampled_from(NUMBERS), unique=True)
_lane = st.sampled_from([Lane.RECHARGE, Lane.SMS])
_operator = st.sampled_from(["CMCC", "CUCC", None])
_learned = st.dictionaries(st.sampled_from(NUMBERS), st.tuples(_operator, st.sampled_from([-3, 0, 2])))
_references = st.lists(st.sampled_from(REFERENCES), unique=True)
_outcome = st.sampled_from([ANSWERED, REFUSED, LOST])
_account = st.sampled_from([ACCOUNT, EVERY_ACCOUNT])


def _act(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


_ACTS = st.one_of(
    _act("claim", _process, _lane, _numbers, _some_numbers, st.sampled_from([5, 20])),
    _act("claim", _process, _lane, _numbers, st.just([]), st.sampled_from([5, 20])),
    _act(
        "claim_early", _process, _lane, _reference, _number, st.sampled_from([0, 2]), st.sampled_from([5, 20])
    ),
    _act(
        "settle",
        _process,
        _earlier,
        _references,
        _learned,
        _outcome,
        _some_numbers,
        st.integers(0, 3),
        _some_numbers,
    ),
    _act("settle_again", _process, _earlier),
    _act("let_go", _process, _earlier, _some_numbers, st.booleans()),
    _act("split", _process, _earlier, _numbers),
    _act("give_up", _process),
    _act("pass_time", st.sampled_from([0.1, 1, 3, 25, 14 * 3600])),
    _act("pass_time", st.sampled_from([1, 2])),
    _act("die", _process),
    _act("look_up", _process, _lane),
    _act("call_ended", _process, _lane, st.booleans(), st.booleans()),
    _act("may_probe", _process, _lane),
    _act("close_gate", _process, _account, st.sampled_from(["one", "two"])),
    _act("mark", _process, _earlier),
    _act("relay", _process, st.integers(1, 3)),
    _act("park", _process, st.integers(1, 3), st.sampled_from(["one", "two"])),
)


@dataclass
class Run:
    """One kind of store, and the operations made on it."""

    stores: Stores
    budget: Budget
    processes: list[Store] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    # the latest
    probe: datetime | None = None

    def __post_init__(self) -> None:
        self.processes = [self.stores.process(self.budget) for _ in range(_PROCESSES)]

    def do(self, act: tuple[Any, ...]) -> Any:
        """Make one operation; return what is told."""
        name, *arguments = act
        return getattr(self, name)(*arguments)

    def kept(self) -> Any:
        return self.stores.calls(), self.stores.in_flight(), self.stores.rest(), self.look_up(0, Lane.SMS)

    def claim(self, process: int, lane: Lane, numbers: list[str], overtaken: list[str], hold: float) -> Any:
        call = self._new_call(lane, hold)
        keys = {msisdn: [a_key(reference) for reference in REFERENCES] for msisdn in numbers}
        return self.processes[process].claim(call, keys, overtaken=overtaken)

    def claim_early(  # noqa: PLR0917 - one operation's drawn values
        self, process: int, lane: Lane, reference: str, number: str, age: int, hold: float
    ) -> Any:
        since = self.stores.now() - timedelta(seconds=age)
        early = EarlyClaim(self._new_call(lane, hold), a_key(reference, lane), number, since, 1)
        return self._look_up(process, lane, early)

    def split(self, process: int, earlier: int, numbers: list[str]) -> Any:
        parent = self._call(earlier)
        return self.processes[process].split(self._new_call(parent.lane, 5), numbers, from_id=parent.id)

    def let_go(self, process: int, earlier: int, numbers: list[str], forget: bool) -> None:
        self.processes[process].let_go(self._call(earlier).id, numbers, forget_call=forget)

    def settle(  # noqa: PLR0917 - one operation's drawn values
        self,
        process: int,
        earlier: int,
        references: list[str],
        learned: dict[str, tuple[str | None, int]],
        outcome: str,
        numbers: list[str],
        billed: int,
        without_record: list[str],
    ) -> Any:
        number, call = 5000 + len(self.settlements), self._call(earlier)
        batch_id = an_id(number)
        at = self.stores.now() + timedelta(microseconds=len(self.settlements))  # no two at the same time
        lost = outcome == LOST
        ended = EndedCall(
            call, numbers, outcome, None if lost else at, None if lost else billed, numbers if lost else ()
        )
        settlement = Settlement(
            batch_id,
            Lane.SMS,
            at,
            [a_row(A, batch_id, at, reference=reference) for reference in references],
            [self._record(msisdn, *about) for msisdn, about in learned.items()],
            [ended],
            call.id,
            {1 + REFERENCES.index(reference): a_key(reference) for reference in references},
            without_record,
        )
        self.settlements.append(settlement)
        return self.processes[process].settle(settlement)

    def settle_again(self, process: int, earlier: int) -> Any:
        if not self.settlements:
            return None
        return self.processes[process].settle(self.settlements[earlier % len(self.settlements)])

    def give_up(self, process: int) -> int:
        return self.processes[process].give_up_dead_calls()

    def pass_time(self, seconds: float) -> None:
        self.stores.pass_time(seconds)

    def die(self, process: int) -> None:
        self.stores.die(self.processes[process])
        self.processes[process] = self.stores.process(self.budget)

    def look_up(self, process: int, lane: Lane) -> Known:
        return self._look_up(process, lane, None)

    def _look_up(self, process: int, lane: Lane, early: EarlyClaim | None) -> Known:
        keys, letters = [a_key(reference) for reference in REFERENCES], [1]
        known = self.processes[process].look_up(ACCOUNT, lane, keys, NUMBERS, letters, early=early)
        breaker = known.breaker
        if breaker is not None:
            breaker = replace(breaker, pause_seconds=round(breaker.pause_seconds, 4))
        return replace(known, breaker=breaker)

    def call_ended(self, process: int, lane: Lane, lost: bool, probed: bool) -> None:
        self.processes[process].call_ended(ACCOUNT, lane, lost=lost, probe=self.probe if probed else None)

    def may_probe(self, process: int, lane: Lane) -> datetime | None:
        until = self.processes[process].may_probe(ACCOUNT, lane, hold_seconds=2)
        self.probe = until or self.probe
        return until

    def close_gate(self, process: int, account: str, reason: str) -> bool:
        return self.processes[process].close_gate(account, by="ops", reason=reason)

    def mark(self, process: int, earlier: int) -> None:
        if self.settlements:
            batch_id = self.settlements[earlier % len(self.settlements)].batch_id
            self.processes[process].mark_emitted(batch_id, self.stores.now())

    def relay(self, process: int, most: int) -> Any:
        sent: list[Any] = []
        count = self.processes[process].relay(
            lambda rows, changes: sent.append((list(rows), list(changes))),
            older_than_seconds=2,
            most=most,
            now=self.stores.now,
        )
        return count, sent

    def park(self, process: int, number: int, reason: str) -> None:
        letter = DeadLetter(an_id(number), None, {"mobile": A}, reason, None, self.stores.now())
        self.processes[process].park([letter])

    def _new_call(self, lane: Lane, hold: float) -> Call:
        call = a_call(self.stores, 1 + len(self.calls), lane=lane, hold_seconds=hold)
        self.calls.append(call)
        return call

    def _call(self, earlier: int) -> Call:
        return self.calls[earlier % len(self.calls)] if self.calls else a_call(self.stores, 999)

    def _record(self, msisdn: str, operator: str | None, seconds: int) -> PortRecord:
        at = self.stores.now() + timedelta(seconds=seconds)
        if operator is None:
            return PortRecord(msisdn, Status.UNKNOWN, None, None, None, at)
        return a_record(msisdn, at, operator)


def test_the_store_in_memory_answers_what_postgres_answers(database_url: str) -> None:
    with in_postgres(database_url) as postgres:

        @settings(max_examples=50, deadline=None)
        @given(st.lists(_ACTS, min_size=5, max_size=30), st.sampled_from([0, 4]), st.sampled_from([0.0, 0.5]))
        def agree(acts: list[tuple[Any, ...]], daily: int, reserve: float) -> None:
            postgres.clear()
            real, fake = Run(postgres, Budget(daily, reserve)), Run(InMemory(), Budget(daily, reserve))
            for act in acts:
                note(f"{act}")
                assert fake.do(act) == real.do(act)
            assert fake.kept() == real.kept()

        agree()
