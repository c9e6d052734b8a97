"""Suspects that run apart, in lanes of their own with notes in memory."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.acceptance.waiting import eventually
from worker.batching import BatchOutcome, Waiter
from worker.errors import StorageUnavailable
from worker.lane import LaneRunner
from worker.portability.requests import CheckRequest, Lane
from worker.suspects import Suspects
from worker.suspicion import Suspicion

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Notebook:
    """What Postgres would have noted: deaths by item."""

    def __init__(self, noted: dict[str, int] | None = None) -> None:
        self.noted = dict(noted or {})
        self.away = 0

    def begin(self, suspicions: Collection[Suspicion]) -> None:
        if self.away:
            self.away -= 1
            raise StorageUnavailable("away")
        self._put(suspicions)

    def end(self, suspicions: Collection[Suspicion], *, cleared: Collection[str]) -> None:
        self._put(suspicions)
        for item_id in cleared:
            self.noted.pop(item_id, None)

    def _put(self, suspicions: Collection[Suspicion]) -> None:
        self.noted |= {str(each.item_id): each.deaths for each in suspicions}


def suspect(name: str, deaths: int, lane: Lane = Lane.SMS) -> Waiter:
    suspicion = Suspicion(name, deaths, NOW, NOW) if deaths else Suspicion(name)
    return Waiter(CheckRequest(lane, name, "13900000001", NOW), suspicion=suspicion)


class Lanes:
    """Lanes over one watch; what their batches find noted while they run."""

    def __init__(self, notebook: Notebook, *, decide: bool = True) -> None:
        self.notebook, self.decide = notebook, decide
        self.found: list[dict[str, int]] = []
        self.running, self.together = 0, 0
        self.go_on = threading.Event()
        self.go_on.set()
        suspects = Suspects(notebook)
        self.lanes = {
            lane: LaneRunner(
                lane, slots=2, linger_seconds=0, run_batch=self._run, settle=lambda _: None, suspects=suspects
            )
            for lane in (Lane.SMS, Lane.RECHARGE)
        }

    def _run(self, batch: Sequence[Waiter], **_about: object) -> BatchOutcome:
        self.running += 1
        self.together = max(self.together, self.running)
        self.found.append(dict(self.notebook.noted))
        assert self.go_on.wait(10)
        self.running -= 1
        rejected = [(one, "done") for one in batch] if self.decide else []
        return BatchOutcome(rejected=rejected)


@contextmanager
def lanes(notebook: Notebook, *, decide: bool = True) -> Iterator[Lanes]:
    made = Lanes(notebook, decide=decide)
    try:
        yield made
    finally:
        made.go_on.set()
        assert all(lane.close(timeout_seconds=10) for lane in made.lanes.values())


def test_a_batch_is_noted_while_it_runs_and_struck_off_once_decided() -> None:
    with lanes(Notebook({"a": 1, "b": 1})) as here:
        here.lanes[Lane.SMS].submit([suspect("a", 1), suspect("b", 1), suspect("new", 0)])
        eventually(lambda: not here.notebook.noted, "an empty notebook")
        assert here.found == [{"a": 1, "b": 1, "new": 1}, {"a": 2, "b": 2}]


def test_what_lived_without_being_decided_is_held_to_what_was_held_before() -> None:
    with lanes(Notebook({"a": 1}), decide=False) as here:
        here.lanes[Lane.SMS].submit([suspect("a", 1)])
        eventually(lambda: here.found and here.notebook.noted == {"a": 1}, "the death taken back")


def test_nothing_runs_while_it_cannot_be_noted() -> None:
    notebook = Notebook()
    notebook.away = 1
    with lanes(notebook) as here:
        here.lanes[Lane.SMS].submit([suspect("a", 0)])
        eventually(lambda: here.found, "a batch")
        assert here.found == [{"a": 1}]
        assert not notebook.away


def test_two_lanes_of_one_process_do_not_run_suspects_together() -> None:
    with lanes(Notebook()) as here:
        here.go_on.clear()
        here.lanes[Lane.SMS].submit([suspect("a", 0)])
        eventually(lambda: here.running, "the first batch")
        here.lanes[Lane.RECHARGE].submit([suspect("b", 0, Lane.RECHARGE)])
        ordinary = Waiter(CheckRequest(Lane.RECHARGE, "c", "13900000002", NOW))
        eventually(lambda: here.lanes[Lane.RECHARGE].snapshot()["busy"], "the other lane's turn")
        here.lanes[Lane.RECHARGE].submit([ordinary])
        eventually(lambda: here.together == 2, "an ordinary batch beside it")  # the suspects let it pass
        assert here.found == [{"a": 1}, {"a": 1}]
        here.go_on.set()
        eventually(lambda: len(here.found) == 3 and not here.notebook.noted, "the other suspect")
