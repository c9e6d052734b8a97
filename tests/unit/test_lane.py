"""A lane over a pipeline that says what the test wants."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from tests.acceptance.waiting import eventually
from tests.unit.test_suspects import Notebook
from worker.batching import BatchOutcome, Postponed, Waiter
from worker.lane import LaneRunner, RunBatch
from worker.portability.requests import CheckRequest, Lane
from worker.suspects import Suspects
from worker.suspicion import Suspicion

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def waiter(reference: str) -> Waiter:
    return Waiter(CheckRequest(Lane.RECHARGE, reference, "13900000001", NOW))


def lane_of(lane: Lane, run: RunBatch = lambda _, **_about: BatchOutcome(), **options: Any) -> LaneRunner:
    defaults: dict[str, Any] = {"slots": 1, "linger_seconds": 0}
    return LaneRunner(
        lane, run_batch=run, settle=lambda _: None, suspects=Suspects(Notebook()), **defaults | options
    )


def test_who_has_to_wait_comes_again_though_the_batch_went_on_to_ask_for_others() -> None:
    postponed, asked = waiter("contradicts"), waiter("is asked for")
    ran: list[list[Waiter]] = []

    def run(batch: Sequence[Waiter], **_about: object) -> BatchOutcome:
        ran.append(list(batch))
        if len(ran) == 1:
            return BatchOutcome(postponed=[Postponed(postponed, 0.01)], still_asking=[asked])
        return BatchOutcome(rejected=[(one, "done") for one in batch])

    lane = lane_of(Lane.RECHARGE, run)
    lane.submit([postponed, asked])
    eventually(lambda: postponed.settled, "the postponed request settled", seconds=5)
    assert ran == [[postponed, asked], [asked], [postponed]]
    assert lane.close(timeout_seconds=5)


def test_a_lane_starts_all_its_threads_at_once() -> None:
    """What a process needs at its busiest it needs from the start: it must not seem to grow for hours."""
    lane = lane_of(Lane.DIRECT, slots=3)
    assert sum(thread.name.startswith("direct-batch") for thread in threading.enumerate()) == 3 + 1 + 2
    assert lane.close(timeout_seconds=5)


def test_a_request_that_changes_nothing_does_not_wake_the_dispatcher() -> None:
    looks: Counter[str] = Counter()

    def clock() -> float:
        looks[threading.current_thread().name] += 1
        return time.monotonic()

    lane = lane_of(Lane.SMS, linger_seconds=60, clock=clock)
    lane.submit([waiter("the first")])
    eventually(lambda: looks["sms-dispatch"] > 0, "a dispatcher that looked", seconds=5)
    for index in range(200):
        lane.submit([waiter(f"another {index}")])
        time.sleep(0.001)  # time to look, for a dispatcher that was woken
    assert looks["sms-dispatch"] < 50
    assert lane.close(timeout_seconds=5)


def test_an_idle_lane_starts_what_comes_without_its_dispatcher() -> None:
    """A shopper would wait for its waking. The others find the slot taken, and are the dispatcher's."""
    looks: Counter[str] = Counter()
    going_on, ran = threading.Event(), list[list[Waiter]]()

    def clock() -> float:
        looks[threading.current_thread().name] += 1
        return time.monotonic()

    def run(batch: Sequence[Waiter], **_about: object) -> BatchOutcome:
        ran.append(list(batch))
        going_on.wait(5)
        return BatchOutcome(rejected=[(one, "done") for one in batch])

    lane = lane_of(Lane.RECHARGE, run, clock=clock)
    eventually(lambda: looks["recharge-dispatch"] > 0, "a dispatcher that sleeps", seconds=5)
    before = looks["recharge-dispatch"]
    first, second = waiter("first"), waiter("second")
    lane.submit([first])
    eventually(lambda: ran == [[first]], "the batch", seconds=5)
    assert looks["recharge-dispatch"] == before
    lane.submit([second])
    going_on.set()
    eventually(lambda: second.settled, "the other", seconds=5)
    assert ran == [[first], [second]]
    assert lane.close(timeout_seconds=5)


def test_what_an_idle_lane_starts_at_once_is_still_given_up_in_time() -> None:
    going_on, told = threading.Event(), list[list[Waiter]]()

    def run(batch: Sequence[Waiter], **_about: object) -> BatchOutcome:
        told.append(list(batch))
        if len(told) == 1:
            going_on.wait(10)  # the provider does not answer
        return BatchOutcome(rejected=[(one, "done") for one in batch])

    lane = lane_of(Lane.RECHARGE, run)
    late = waiter("late")
    late.deadline = time.monotonic() + 0.2
    lane.submit([late])
    eventually(lambda: late.settled, "the end of its time", seconds=5)
    assert told == [[late], [late]]
    going_on.set()
    assert lane.close(timeout_seconds=5)


def test_a_slot_is_free_once_its_call_is_answered_and_the_lane_still_waits_for_the_rest() -> None:
    """Storing and telling answers takes a while, in which the provider would have nothing to do."""
    go_on, telling = threading.Event(), list[str]()

    def run(batch: Sequence[Waiter], *, asked: Callable[[], None]) -> BatchOutcome:
        asked()
        telling.append(batch[0].request.reference)
        go_on.wait(10)
        return BatchOutcome(rejected=[(one, "done") for one in batch])

    lane = lane_of(Lane.SMS, run, slots=2)
    for name in ("first", "second", "third"):  # three at once in two slots
        lane.submit([waiter(name)])
        eventually(lambda name=name: name in telling, f"{name} to be told", seconds=5)
    assert lane.snapshot()["busy"] == 0
    assert not lane.close(timeout_seconds=0.2), "what was bought is not stored yet"
    go_on.set()


def test_suspects_start_only_when_nothing_is_left_to_tell() -> None:
    """A process that died while it told others' answers would be held against them."""
    go_on, calls = threading.Event(), list[str]()

    def run(batch: Sequence[Waiter], *, asked: Callable[[], None]) -> BatchOutcome:
        calls.append(batch[0].request.reference)
        asked()
        go_on.wait(10)
        return BatchOutcome(rejected=[(one, "done") for one in batch])

    lane = lane_of(Lane.SMS, run, slots=2)
    lane.submit([waiter("other")])
    eventually(lambda: calls == ["other"] and lane.snapshot()["busy"] == 0, "its slot free", seconds=5)
    suspect = waiter("suspect")
    suspect.suspicion = Suspicion("item")
    lane.submit([suspect])
    assert lane.snapshot()["waiting"] == 1, "with a slot free it would have been started by now"
    assert calls == ["other"]
    go_on.set()
    eventually(lambda: calls == ["other", "suspect"], "the suspect", seconds=5)
    assert lane.close(timeout_seconds=5)
