"""A batch's way, in time: what ``worker.pipeline`` and ``worker.asking`` do, without SQL, HTTP and events."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from worker.batching import Waiter
from worker.portability.requests import Lane
from worker.simulation.agenda import Agenda
from worker.simulation.answers import Answers
from worker.simulation.scenario import Costs, LanePlan

BEFORE_THE_CALL = 0.3
"""Share of a batch's work and waits that comes before its call: look-up and claim."""


class Work(NamedTuple):
    """Seconds on the process's core."""

    seconds: float


class Wait(NamedTuple):
    """Seconds for others: Postgres, the broker, the provider."""

    seconds: float


class Asked(NamedTuple):
    """No further call is made for the batch: its slot is free."""


Step = Work | Wait | Asked
Steps = Generator[Step, None, None]
Found = list[tuple[Waiter, float | None]]
"""Items that can be decided, each with the moment its answer was observed; None: there is none in time."""
Decided = Callable[[Waiter, float | None], None]
"""Told of each when it is."""


@dataclass(slots=True)
class Way:
    """Leads the batches of one lane in one process."""

    lane: Lane
    plan: LanePlan
    costs: Costs
    agenda: Agenda
    answers: Answers
    # seconds of a call for so many numbers
    latency: Callable[[int], float]

    def run(self, waiters: Sequence[Waiter], postponed: list[Waiter], decided: Decided) -> Steps:
        """Decide a batch; who has to wait for another's call is put into ``postponed``."""
        left = list(waiters)
        while left:
            left = yield from self._once(left, postponed, decided)

    def _once(
        self, waiters: Sequence[Waiter], postponed: list[Waiter], decided: Decided
    ) -> Generator[Step, None, list[Waiter]]:
        yield from self._spend(len(waiters), BEFORE_THE_CALL)
        found, asking = self._known(waiters)
        if found and self.lane is not Lane.SMS:  # somebody waits for the answers that are there
            yield from self._spend(len(found), 1 - BEFORE_THE_CALL)
            _tell(found, decided)
            return asking
        sent_at = self.agenda.now
        held = self._claim(asking, found, postponed)
        if held:
            yield Wait(self.latency(len(held)))
        yield Asked()
        if found:
            yield from self._spend(len(found), 1 - BEFORE_THE_CALL)
        if held:
            self.answers.learn(held, sent_at, self.agenda.now)
        _tell(found, decided)
        return []

    def _known(self, waiters: Sequence[Waiter]) -> tuple[Found, list[Waiter]]:
        """What a batch knows without asking, and who has to ask."""
        now = self.agenda.now
        found: Found = []
        asking: list[Waiter] = []
        for waiter in waiters:
            if waiter.settled:
                continue
            if waiter.deadline is not None and waiter.deadline <= now:
                found.append((waiter, None))
                continue
            observed = self.answers.answer(waiter.token, self.plan, now)
            if observed is None:
                asking.append(waiter)
            else:
                found.append((waiter, observed))
        return found, asking

    def _claim(self, asking: Sequence[Waiter], found: Found, postponed: list[Waiter]) -> set[int]:
        """Hold the numbers nobody is buying; let the requests for the others wait, as ``worker.sharing``."""
        now = self.agenda.now
        numbers = {waiter.token.msisdn for waiter in asking}
        patience = self.plan.share_wait_seconds
        overtaken = {
            waiter.token.msisdn
            for waiter in asking
            if patience is not None
            and waiter.sharing_since is not None
            and now - waiter.sharing_since >= patience
        }
        held = self.answers.hold(numbers, now, overtaken=overtaken)
        for waiter in asking:
            item = waiter.token
            if item.msisdn in held:
                found.append((waiter, now))
                continue
            if waiter.sharing_since is None:
                waiter.sharing_since = now
            item.shares_from = min(self.answers.in_flight[item.msisdn], item.received_at)
            postponed.append(waiter)
        return held

    def _spend(self, items: int, share: float) -> Steps:
        """What Postgres, the broker and the process itself take of the time of so many items."""
        yield Work(share * (self.costs.batch + items * self.costs.item))
        yield Wait(share * (self.costs.batch_wait + items * self.costs.item_wait))


def _tell(found: Found, decided: Decided) -> None:
    for waiter, observed in found:
        if not waiter.settled:  # an overdue twin may have been quicker
            waiter.settled = True
            decided(waiter, observed)
