"""The batcher: its cap, its slots, its patience; driven by a clock of the test's own."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from worker.batching import WAITERS_A_BATCH, Batcher, Slot, Waiter
from worker.portability.requests import CheckRequest, Lane
from worker.suspicion import CAPS, Suspicion, cap

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def waiter(number: int | None, *, deadline: float | None = None, deaths: int | None = None) -> Waiter:
    msisdn = None if number is None else f"139{number:08d}"
    request = CheckRequest(Lane.SMS, f"m{number}", msisdn, NOW)
    suspicion = None if deaths is None else Suspicion("an id", deaths)
    return Waiter(request, deadline=deadline, suspicion=suspicion)


def suspects(waiters: list[Waiter]) -> bool:
    return any(one.suspicion is not None for one in waiters)


def batcher(clock: Clock, **options: float) -> Batcher:
    defaults: dict[str, float] = {"slots": 2, "linger_seconds": 0.0, "cap": 10}
    return Batcher(clock=clock, **(defaults | options))  # type: ignore[arg-type]


class AnyTraffic(RuleBasedStateMachine):
    """Whatever arrives, waits, fails, expires or is forgotten: nobody is lost, nobody is served twice."""

    @initialize(slots=st.integers(1, 3), linger=st.sampled_from([0.0, 0.25]), cap=st.integers(1, 7))
    def start(self, slots: int, linger: float, cap: int) -> None:
        self.clock = Clock()
        self.batcher = batcher(self.clock, slots=slots, linger_seconds=linger, cap=cap)
        self.cap = cap
        self.slots = slots
        self.held: list[list[Waiter]] = []
        self.live: dict[int, Waiter] = {}
        self.overdue: list[Waiter] = []

    @rule(
        numbers=st.lists(st.none() | st.integers(0, 20), min_size=1, max_size=30),
        patience=st.none() | st.floats(0.1, 5),
        deaths=st.none() | st.integers(0, len(CAPS) - 1),
    )
    def arrive(self, numbers: list[int | None], patience: float | None, deaths: int | None) -> None:
        deadline = None if patience is None else self.clock.now + patience
        new = [waiter(number, deadline=deadline, deaths=deaths) for number in numbers]
        self.live |= {id(one): one for one in new}
        self.batcher.add(new)

    @rule(seconds=st.floats(0.01, 3))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def take(self) -> None:
        batch = self.batcher.next_batch()
        if batch is None:
            return
        distinct = {one.request.msisdn or id(one) for one in batch}
        assert 1 <= len(distinct) <= self.cap
        assert len(batch) <= WAITERS_A_BATCH
        assert not any(one.settled or one.overdue for one in batch)
        in_calls = {id(one) for held in self.held for one in held}
        assert not in_calls & {id(one) for one in batch}
        assert not any(map(suspects, self.held)), "nothing starts beside suspects"
        if suspects(batch):
            assert not self.held, "suspects start beside nothing"
            (level,) = {one.suspicion.level if one.suspicion else None for one in batch}
            assert level is not None
            assert len(batch) <= cap(level)
        self.held.append(batch)
        assert len(self.held) <= self.slots

    @precondition(lambda self: self.held)
    @rule(back=st.booleans(), pause=st.floats(0, 1), defect=st.booleans())
    def finish(self, back: bool, pause: float, defect: bool) -> None:
        batch = self.held.pop(0)
        Slot(self.batcher).end()
        if back:
            for one in batch if defect else ():
                one.suspicion = (one.suspicion or Suspicion()).failed(ValueError())
            self.batcher.postpone(batch, pause)
        else:
            for one in batch:
                one.settled = True
                self.live.pop(id(one), None)

    @rule()
    def expire(self) -> None:
        for one in self.batcher.overdue():
            assert one.deadline is not None
            assert one.deadline <= self.clock.now
            one.settled = True
            self.live.pop(id(one), None)

    @rule()
    def reconnect(self) -> None:
        self.batcher.forget()
        self.live.clear()

    @invariant()
    def somebody_will_look_again(self) -> None:
        if not hasattr(self, "batcher"):
            return
        in_calls = {id(one) for held in self.held for one in held}
        waiting = [one for one in self.live.values() if id(one) not in in_calls]
        # suspects wait for the end of what runs, which is looked at anyway
        any_suspects = suspects([*self.live.values(), *itertools.chain(*self.held)])
        free = not self.held if any_suspects else len(self.held) < self.slots
        if waiting and free:
            assert self.batcher.wake_at() is not None

    def teardown(self) -> None:
        """However it went, everyone who still waits is served in the end."""
        if not hasattr(self, "batcher"):
            return
        while self.held:
            self.finish(back=True, pause=0.0, defect=False)
        for _ in range(1000):
            wake_at = self.batcher.wake_at()
            if wake_at is None:
                break
            self.clock.now = max(self.clock.now, wake_at)
            self.expire()
            self.take()
            while self.held:
                self.finish(back=False, pause=0.0, defect=False)
        assert not self.live


AnyTraffic.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyTraffic = AnyTraffic.TestCase


def full_batches(clock: Clock, lane: Batcher, *, seconds: float, until: float) -> list[float]:
    """When batches start while a backlog lasts whose calls take so long."""
    ends: list[tuple[float, Slot]] = []
    starts = []
    while clock.now < until:
        while lane.next_batch() is not None:
            starts.append(clock.now)
            ends.append((clock.now + seconds, Slot(lane)))
        wake_at = lane.wake_at()
        clock.now = min([ends[0][0]] + [wake_at] * (wake_at is not None))
        while ends and ends[0][0] <= clock.now:
            ends.pop(0)[1].end()
    return starts


@pytest.mark.parametrize(("seconds", "apart"), [(1.5, 0.9 * 1.5 / 8), (4.0, 0.25)])
def test_full_batches_start_apart_and_leave_no_slot_empty(seconds: float, apart: float) -> None:
    clock = Clock(0.0)
    lane = batcher(clock, slots=8, linger_seconds=0.25)
    lane.add(waiter(number) for number in range(10_000))
    starts = full_batches(clock, lane, seconds=seconds, until=100 * seconds)
    between = [later - earlier for earlier, later in pairwise(starts)]
    assert between[:7] == pytest.approx([0.9 * 1.5 / 8] * 7), "as the provider's document lets expect"
    assert min(between[7:]) == pytest.approx(apart)
    rounds = [starts[8 * number] for number in range(50)]
    assert rounds[49] - rounds[2] == pytest.approx(47 * seconds), "each slot has its next batch at once"


def test_where_somebody_waits_full_batches_start_at_once() -> None:
    clock = Clock(0.0)
    lane = batcher(clock, slots=8, linger_seconds=0.0)
    lane.add(waiter(number) for number in range(1000))
    assert full_batches(clock, lane, seconds=1.5, until=4.0) == [0.0] * 8 + [1.5] * 8 + [3.0] * 8


@given(numbers=st.lists(st.integers(0, 5000), min_size=1, max_size=5000))
@settings(max_examples=20, deadline=None)
def test_no_batch_ever_carries_more_than_a_thousand_numbers(numbers: list[int]) -> None:
    clock = Clock()
    lane = Batcher(slots=64, linger_seconds=0.0, clock=clock)
    lane.add(waiter(number) for number in numbers)
    served = 0
    while (batch := lane.next_batch()) is not None:
        assert len({one.request.msisdn for one in batch}) <= 1000
        served += len(batch)
    assert served == len(numbers)


def test_a_lone_request_does_not_wait_for_company() -> None:
    lane = batcher(Clock())
    lane.add([waiter(1)])
    assert len(lane.next_batch() or []) == 1


def test_a_lingering_lane_waits_to_fill_but_no_longer() -> None:
    clock = Clock()
    lane = batcher(clock, linger_seconds=0.25, cap=3)
    lane.add([waiter(1)])
    assert lane.next_batch() is None
    assert lane.wake_at() == clock.now + 0.25
    lane.add([waiter(2), waiter(3)])
    assert len(lane.next_batch() or []) == 3, "a full batch does not linger"
    lane.add([waiter(4)])
    clock.now += 0.25
    assert len(lane.next_batch() or []) == 1


def test_all_who_wait_for_a_number_share_its_batch() -> None:
    lane = batcher(Clock(), cap=1)
    lane.add([waiter(1), waiter(2), waiter(1), waiter(1)])
    assert [one.request.msisdn for one in lane.next_batch() or []] == ["13900000001"] * 3


def test_a_paused_lane_starts_nothing_until_its_time() -> None:
    clock = Clock()
    lane = batcher(clock)
    lane.add([waiter(1)])
    lane.pause(5)
    lane.pause(1)
    assert lane.next_batch() is None
    assert lane.wake_at() == clock.now + 5
    clock.now += 5
    assert lane.next_batch()


def test_an_overdue_request_is_taken_out_even_while_its_call_runs() -> None:
    clock = Clock()
    lane = batcher(clock)
    late = waiter(1, deadline=clock.now + 5)
    lane.add([late])
    assert lane.next_batch() == [late]
    clock.now += 5
    assert lane.overdue() == [late]
    assert lane.overdue() == [], "once"
    lane.postpone([late], 1.0)  # Postgres was away: it must come again
    clock.now += 1
    assert lane.overdue() == [late]


def test_decided_requests_are_let_go_long_before_their_deadline() -> None:
    clock = Clock()
    lane = batcher(clock)
    references = []
    for number in range(20_000):
        one = waiter(number, deadline=clock.now + 86_400)
        lane.add([one])
        lane.next_batch()
        Slot(lane).end()
        one.settled = True
        references.append(weakref.ref(one))
        del one
    assert sum(reference() is not None for reference in references) < 10_000


def test_what_was_forgotten_does_not_come_back_from_a_call() -> None:
    clock = Clock()
    lane = batcher(clock)
    lane.add([waiter(1)])
    batch = lane.next_batch()
    lane.forget()
    Slot(lane).end()
    lane.postpone(batch or [], 0.0)
    clock.now += 60
    assert lane.next_batch() is None
    assert lane.waiting == 0


def test_suspects_run_by_their_deaths_the_least_suspected_first_in_smaller_and_smaller_batches() -> None:
    lane = Batcher(slots=8, linger_seconds=0.0, clock=Clock())
    lane.add(waiter(number, deaths=deaths) for number in range(1000) for deaths in (3, 2, 1, 0))
    sizes: list[tuple[int, int]] = []
    while (batch := lane.next_batch()) is not None:
        assert lane.next_batch() is None
        assert batch[0].suspicion is not None
        sizes.append((batch[0].suspicion.deaths, len(batch)))
        Slot(lane).end()
    assert sizes == [(0, 1000), *[(1, 32)] * 31, (1, 8), *[(2, 1)] * 1000, *[(3, 1)] * 1000]


@given(slots=st.integers(1, 4), others=st.integers(1, 40))
def test_others_are_served_between_suspects_and_neither_waits_for_ever(slots: int, others: int) -> None:
    """A batch of suspects is followed by as many others as there are slots."""
    lane = batcher(Clock(), slots=slots, cap=1)
    lane.add(waiter(number, deaths=3) for number in range(3))
    lane.add(waiter(100 + number) for number in range(others))
    served = []
    while (batch := lane.next_batch()) is not None:
        served.append(suspects(batch))
        Slot(lane).end()
    turns = "".join("s" if each else "o" for each in served)
    assert turns.count("s") == 3
    assert turns.count("o") == others
    assert turns.startswith("s" + "o" * min(slots, others))


def test_an_overdue_suspect_is_left_to_its_own_batch_unless_it_runs() -> None:
    clock = Clock()
    lane = batcher(clock)
    running, waiting = (waiter(number, deadline=clock.now + 5, deaths=3) for number in (1, 2))
    lane.add([running, waiting])
    assert lane.next_batch() == [running]
    clock.now += 5
    assert lane.overdue() == [running]
    running.settled = True
    Slot(lane).end()
    assert lane.next_batch() == [waiting]
