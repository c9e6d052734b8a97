"""The batcher: its cap, its slots, its patience; driven by a clock of the test's own."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from worker.batching import WAITERS_A_BATCH, Batcher, Waiter
from worker.portability.requests import CheckRequest, Lane

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def waiter(number: int | None, *, deadline: float | None = None) -> Waiter:
    msisdn = None if number is None else f"139{number:08d}"
    request = CheckRequest(Lane.SMS, f"m{number}", msisdn, NOW)
    return Waiter(request, deadline=deadline)


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
    )
    def arrive(self, numbers: list[int | None], patience: float | None) -> None:
        deadline = None if patience is None else self.clock.now + patience
        new = [waiter(number, deadline=deadline) for number in numbers]
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
        self.held.append(batch)
        assert len(self.held) <= self.slots

    @precondition(lambda self: self.held)
    @rule(back=st.booleans(), pause=st.floats(0, 1))
    def finish(self, back: bool, pause: float) -> None:
        batch = self.held.pop(0)
        self.batcher.done()
        if back:
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
        if self.live.keys() - in_calls and len(self.held) < self.slots:
            assert self.batcher.wake_at() is not None

    def teardown(self) -> None:
        """However it went, everyone who still waits is served in the end."""
        if not hasattr(self, "batcher"):
            return
        while self.held:
            self.finish(back=True, pause=0.0)
        for _ in range(1000):
            wake_at = self.batcher.wake_at()
            if wake_at is None:
                break
            self.clock.now = max(self.clock.now, wake_at)
            self.expire()
            self.take()
            while self.held:
                self.finish(back=False, pause=0.0)
        assert not self.live


AnyTraffic.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyTraffic = AnyTraffic.TestCase


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
        lane.done()
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
    lane.done()
    lane.postpone(batch or [], 0.0)
    clock.now += 60
    assert lane.next_batch() is None
    assert lane.waiting == 0
