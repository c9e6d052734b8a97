"""What became of a simulated lane: what was decided when, after which wait, and what kept it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.simulation.agenda import Agenda
from worker.simulation.answers import Answers
from worker.simulation.scenario import LanePlan
from worker.simulation.traffic import Item

_SETTLING_IN = 0.1
"""Rates are taken between the first and the last tenth of what is decided, as the benchmarks take them."""
_GROWS, _FEW = 0.05, 10
"""A lane falls behind where what waits grows by more than this share of what comes, and than a few."""


class Seen(NamedTuple):
    """A lane at a moment, in items."""

    sent: int = 0
    undecided: int = 0


@dataclass(slots=True)
class LaneRecord:
    """Filled while a lane runs; times are seconds."""

    plan: LanePlan
    agenda: Agenda
    answers: Answers
    sent: int = 0
    expired: int = 0
    batches: int = 0
    batched_items: int = 0
    # when a slot was taken, and given back
    slots_taken: list[tuple[float, float]] = field(default_factory=list)
    decided_at: array[float] = field(default_factory=lambda: array("d"))
    # from the producer's hand to the confirmed event
    waits: array[float] = field(default_factory=lambda: array("d"))

    def decided(self, item: Item, observed: float | None) -> None:
        """Note an item, and when its answer was observed."""
        now = self.agenda.now
        self.decided_at.append(now)
        self.waits.append(now - item.message.sent_at)
        if observed is None:
            self.expired += 1
        else:
            self.answers.decided(item, observed, self.plan, now)

    def keeps_up(self, half: Seen, end: Seen) -> bool | None:
        """Whether what waits did not grow between the two moments, half of the time and all of it."""
        came = end.sent - half.sent
        return end.undecided - half.undecided <= max(_FEW, _GROWS * came) if self.plan.rate else None

    @property
    def ended_at(self) -> float:
        """When the last was decided."""
        return self.decided_at[-1] if self.decided_at else 0.0

    def seen(self) -> Seen:
        """What has been sent and decided by now."""
        return Seen(self.sent, self.sent - len(self.decided_at))

    def outcome(self, half: Seen, end: Seen, *, core_seconds: float) -> LaneOutcome:
        """Sum it up, once everything is decided."""
        waits = array("d", sorted(self.waits))
        span = self.ended_at
        workers = max(1, self.plan.workers)
        return LaneOutcome(
            decided=len(waits),
            seconds=span,
            throughput=rate(self.decided_at),
            wait_mean=sum(waits) / len(waits) if waits else 0.0,
            wait_p50=quantile(waits, 0.5),
            wait_p99=quantile(waits, 0.99),
            wait_p999=quantile(waits, 0.999),
            wait_max=waits[-1] if waits else 0.0,
            batch=self.batched_items / self.batches if self.batches else 0.0,
            expired=self.expired,
            slots_used=self._slot_seconds(span) / (span * workers * self.plan.slots) if span else 0.0,
            core_used=core_seconds / (span * workers) if span else 0.0,
            left=end.undecided,
            keeps_up=self.keeps_up(half, end),
        )

    def batch(self, items: int, seconds: float) -> None:
        """Note a batch that gives its slot back."""
        self.batches += 1
        self.batched_items += items
        self.slots_taken.append((self.agenda.now - seconds, self.agenda.now))

    def _slot_seconds(self, until: float) -> float:
        """For how long slots were taken until then: what expires in a call does not wait for its end."""
        return sum(min(given_back, until) - min(taken, until) for taken, given_back in self.slots_taken)


@dataclass(frozen=True, slots=True)
class LaneOutcome:
    """One lane's figures; times are seconds, rates items a second."""

    decided: int
    # until the last was decided
    seconds: float
    throughput: float
    wait_mean: float
    wait_p50: float
    wait_p99: float
    wait_p999: float
    wait_max: float
    # items in a batch, on average
    batch: float
    expired: int
    # share of its slots' time, and of its processes' cores, that was taken until the last was decided
    slots_used: float
    core_used: float
    # items undecided when the last one had been sent
    left: int
    # whether what waits does not grow; None where nothing comes, and only a backlog is drained
    keeps_up: bool | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario came to."""

    lanes: dict[str, LaneOutcome]
    items: int
    # numbers bought, those among them bought although another call had them, and the fewest that would do
    look_ups: int
    overtaken: int
    fewest_look_ups: int
    calls: int
    # until the last was decided
    seconds: float


def quantile(ordered: array[float], share: float) -> float:
    """The value that so large a share of the sorted ones does not exceed."""
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))] if ordered else 0.0


def rate(decided_at: array[float]) -> float:
    """Items a second between the first and the last tenth; 0 where there are too few to tell."""
    first, last = int(len(decided_at) * _SETTLING_IN), int(len(decided_at) * (1 - _SETTLING_IN))
    if last <= first or decided_at[last] <= decided_at[first]:
        return 0.0
    return (last - first) / (decided_at[last] - decided_at[first])
