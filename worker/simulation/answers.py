"""What all workers share: stored answers, numbers in flight, the bill, and the fewest look-ups possible."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from worker.simulation.scenario import LanePlan
from worker.simulation.traffic import Item


@dataclass(slots=True)
class Answers:
    """Stands for the tables ``port_record``, ``in_flight`` and ``lookup_call``; times are seconds."""

    # number -> when the call was sent that learned it
    observed: dict[int, float] = field(default_factory=dict)
    # number -> when that call's answer was stored
    answered: dict[int, float] = field(default_factory=dict)
    # number -> when the call was sent that asks for it
    in_flight: dict[int, float] = field(default_factory=dict)
    bought: int = 0
    # bought although another call had them in flight
    overtaken: int = 0
    calls: int = 0
    fewest: int = 0
    _fewest_observed: dict[int, float] = field(default_factory=dict)

    def answer(self, item: Item, plan: LanePlan, now: float) -> float | None:
        """When the stored answer was observed that does for an item; None: the provider must be asked."""
        observed = self.observed.get(item.msisdn)
        if observed is None:
            return None
        if self.answered[item.msisdn] >= item.received_at:  # it came in time to be waited for
            return observed
        return observed if accepted(item, observed, now, plan.max_age_seconds) else None

    def hold(self, numbers: Collection[int], now: float, *, overtaken: Collection[int]) -> set[int]:
        """Hold the numbers that are in no call, and those to be overtaken; return them."""
        in_flight = self.in_flight
        free = {number for number in numbers if number not in in_flight}
        taken_over = {number for number in overtaken if number in in_flight}
        held = free | taken_over
        if held:
            in_flight.update(dict.fromkeys(held, now))
            self.calls += 1
            self.bought += len(held)
            self.overtaken += len(taken_over)
        return held

    def learn(self, numbers: Iterable[int], sent_at: float, now: float) -> None:
        """Store the answers of the call that was sent then, and let its numbers go."""
        for number in numbers:
            if self.observed.get(number, -1.0) < sent_at:
                self.observed[number], self.answered[number] = sent_at, now
            if self.in_flight.get(number) == sent_at:
                del self.in_flight[number]

    def decided(self, item: Item, observed: float, plan: LanePlan, now: float) -> None:
        """Count the fewest look-ups with which every item had an answer it accepts, when it was decided.

        Each item accepts what was observed between two moments; the fewest points that meet all these spans
        are found by taking, in the order of their ends, the end of each span that has no point yet.
        """
        earliest = min(observed, item.received_at)
        if not item.asked_anew:
            earliest = min(earliest, now - plan.max_age_seconds)
        last = self._fewest_observed.get(item.msisdn)
        if last is None or last < earliest:
            self._fewest_observed[item.msisdn] = now
            self.fewest += 1


def accepted(item: Item, observed: float, now: float, max_age_seconds: float) -> bool:
    """Whether an answer observed then does for an item: as ``worker.portability.freshness`` has it."""
    since = item.received_at if item.shares_from is None else item.shares_from
    return observed >= since or (not item.asked_anew and now - observed < max_age_seconds)
