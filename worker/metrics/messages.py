"""Messages in, and what became of them; items parked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from worker.metrics.registry import REGISTRY, Tally
from worker.portability.requests import Lane

DECIDED, REJECTED, GIVEN_BACK, DROPPED = "decided", "rejected", "given_back", "dropped"
NO_LANE = "none"
"""The lane of a message that belongs to no task of ours."""
TASKS = ("recharge.precheck", "recharge.precheck_many", "sms.recheck", "sms.recheck_many")
OTHER_TASK = "other"
"""Any name that is none of these: a producer may write what it likes there."""


class _Received(Collector):
    """Counts each message as it comes: the one count a message that is taken one by one, without a lock."""

    def __init__(self) -> None:
        self.count: dict[str | None, int] = dict.fromkeys((Lane.RECHARGE, Lane.SMS, None), 0)
        REGISTRY.register(self)

    def describe(self) -> Iterable[CounterMetricFamily]:
        yield self._family()

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = self._family()
        for lane, count in self.count.items():
            if count or lane is not None:
                family.add_metric([lane or NO_LANE], count)
        yield family

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(
            "presend_messages_received",
            "Messages taken from the queues, redelivered ones again",
            labels=["lane"],
        )


_received = _Received()
_ended = Tally(
    "presend_messages_ended",
    "Messages that a process holds no more: decided (acknowledged), rejected (a dead letter, acknowledged), "
    "given_back to their queue, or dropped with a lost connection, to be delivered again",
    ["lane", "outcome"],
)
_parked = Tally(
    "presend_dead_letters_parked",
    "Items parked as dead letters by this process; an item parked before counts again",
    ["task"],
)
for _task in (*TASKS, OTHER_TASK):
    _parked.add(_task, by=0)  # or the first one would be no increase


def received(lane: Lane | None) -> None:
    """One message has come. For the consumer's own thread."""
    _received.count[lane] += 1


def ended(lane: Lane | None, outcome: str, count: int) -> None:
    """So many messages are held no more."""
    if count:
        _ended.add(lane or NO_LANE, outcome, by=count)


def parked(tasks: Iterable[str | None]) -> None:
    """Items of these tasks were stored as dead letters."""
    _parked.add_all(Counter(known_task(task) for task in tasks))


def known_task(name: str | None) -> str:
    """The label of a task's name."""
    return name if name in TASKS else OTHER_TASK
