"""A lane over a pipeline that says what the test wants."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.acceptance.waiting import eventually
from tests.unit.test_suspects import Notebook
from worker.batching import BatchOutcome, Postponed, Waiter
from worker.lane import LaneRunner, RunBatch
from worker.portability.requests import CheckRequest, Lane
from worker.suspects import Suspects

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def waiter(reference: str) -> Waiter:
    return Waiter(CheckRequest(Lane.RECHARGE, reference, "13900000001", NOW))


def lane_of(lane: Lane, run: RunBatch = lambda _: BatchOutcome(), **options: Any) -> LaneRunner:
    defaults: dict[str, Any] = {"slots": 1, "linger_seconds": 0}
    return LaneRunner(
        lane, run_batch=run, settle=lambda _: None, suspects=Suspects(Notebook()), **defaults | options
    )


def test_who_has_to_wait_comes_again_though_the_batch_went_on_to_ask_for_others() -> None:
    postponed, asked = waiter("contradicts"), waiter("is asked for")
    ran: list[list[Waiter]] = []

    def run(batch: Sequence[Waiter]) -> BatchOutcome:
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
    assert sum(thread.name.startswith("direct-batch") for thread in threading.enumerate()) == 3 + 2
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
