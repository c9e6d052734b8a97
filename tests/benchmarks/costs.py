"""What a worker's work costs: bursts of known size, one batch at a time, and what they took.

Work is CPU seconds, by thread: the main thread receives, the others run batches. Waits are what is left of a
batch's time between its begin and its confirmed events, as Postgres has noted them, with a provider that
answers at once. Straight lines over the size of batches are laid through both.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from tests.acceptance.harness import Place
from tests.acceptance.processes import Process
from tests.benchmarks import sending
from worker.portability.requests import Lane
from worker.simulation.scenario import Costs

_BURSTS = ((1, 40), (100, 20), (400, 12), (1000, 10))
"""(items, how often): each within one linger, and enough of each to tell."""
_MANY, _MANY_TIMES = 1000, 10
_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class _Spent:
    """CPU seconds of a process: of its main thread, and of those that run batches."""

    consumer: float
    batches: float
    at: float

    @classmethod
    def by(cls, process: psutil.Process) -> _Spent:
        threads = {one.id: one.user_time + one.system_time for one in process.threads()}
        consumer = threads.pop(process.pid)
        return cls(consumer, sum(threads.values()), time.monotonic())

    def since(self, begin: _Spent) -> _Spent:
        return _Spent(self.consumer - begin.consumer, self.batches - begin.batches, self.at - begin.at)

    def over(self, idle: _Spent) -> _Spent:
        """Less what an idle process spends in that time."""
        share = self.at / idle.at
        return _Spent(self.consumer - idle.consumer * share, self.batches - idle.batches * share, self.at)


@dataclass(frozen=True)
class _Bursts:
    """Bursts of one size, all together."""

    messages: int
    spent: _Spent
    # of each batch: its items, and the seconds from its begin to its confirmed events
    batches: Sequence[tuple[int, float]]
    # of each message: seconds from the producer's hand to the consumer's
    delivery: Sequence[float]

    @property
    def items(self) -> int:
        return sum(items for items, _ in self.batches)


class _Line:
    """y = fixed + each * x, by least squares over points that stand for several measurements each."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self.each, self.fixed = statistics.linear_regression(*zip(*points, strict=True))


def measured(here: Place, worker: Process, *, scale: float) -> Costs:
    """Send bursts to an idle lane ``sms`` whose provider answers at once."""
    process = psutil.Process(worker.pid)
    numbers = iter(range(13_700_000_000, 13_800_000_000))

    def bursts(name: str, items: int, times: float, *, many: bool = False) -> _Bursts:
        return _burst(
            here,
            process,
            name,
            [[str(next(numbers)) for _ in range(items)] for _ in range(max(2, round(times)))],
            many=many,
        )

    bursts("warm", 1000, 2)
    begin = _Spent.by(process)
    time.sleep(_IDLE_SECONDS)
    idle = _Spent.by(process).since(begin)
    singles = [bursts(f"burst{items}", items, times * scale) for items, times in _BURSTS]
    return _costs(singles, bursts("many", _MANY, _MANY_TIMES * scale, many=True), idle)


def _burst(
    here: Place, process: psutil.Process, name: str, groups: Sequence[Sequence[str]], *, many: bool
) -> _Bursts:
    rows: list[dict[str, Any]] = []
    delivery = []
    begin = _Spent.by(process)
    for index, numbers in enumerate(groups):
        prefix = f"{name}-{index}"
        ready = (
            [sending.many(prefix, numbers)]
            if many
            else sending.singles(Lane.SMS, prefix, numbers, [0.0] * len(numbers))
        )
        since = time.time()
        sent = sending.send(here.broker_url, ready)
        rows += sending.told(here, prefix, len(numbers), since=since)
        delivery.append(min(row["received_at"] for row in rows[-len(numbers) :]) - sent[0])
    spent = _Spent.by(process).since(begin)
    sizes = Counter(row["batch_id"] for row in rows)
    seconds = {row["batch_id"]: row["told_at"] - row["begun_at"] for row in rows}
    messages = len(groups) if many else len(rows)
    return _Bursts(messages, spent, [(items, seconds[batch]) for batch, items in sizes.items()], delivery)


def _costs(singles: Sequence[_Bursts], many: _Bursts, idle: _Spent) -> Costs:
    work = _Line([_a_batch(each, each.spent.over(idle).batches) for each in singles])
    elapsed = _Line([_a_batch(each, sum(seconds for _, seconds in each.batches)) for each in singles])
    full = singles[-1]
    received = full.spent.over(idle).consumer / full.messages
    # of a message of many items, the consumer's thread reads each
    read = many.spent.over(idle).consumer / many.items
    return Costs(
        message=round(max(0.0, received - read), 7),
        item=round(max(0.0, work.each + read), 7),
        batch=round(max(0.0, work.fixed), 5),
        delivery=round(statistics.median(singles[0].delivery), 5),
        batch_wait=round(max(0.0, elapsed.fixed - work.fixed), 5),
        item_wait=round(max(0.0, elapsed.each - work.each), 7),
    )


def _a_batch(bursts: _Bursts, whole: float) -> tuple[float, float]:
    """A batch's items and its share of something, on average."""
    return bursts.items / len(bursts.batches), whole / len(bursts.batches)
