"""What all processes share: shown by the one upkeep that has the lock, as it last saw it.

Refreshed by upkeep's chore on a timer, not by a scrape: a scrape asks nobody. What could not be read keeps
its last value, and ``presend_fleet_refreshed_timestamp_seconds`` says how old that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.metrics.registry import REGISTRY

DATABASE, BROKER, PROVIDER = "database", "broker", "provider"
SOURCES = (DATABASE, BROKER, PROVIDER)


class _Gauge(NamedTuple):
    documentation: str
    labels: tuple[str, ...] = ()


GAUGES = {
    "presend_queue_messages": _Gauge(
        "Messages that wait in a queue; those that workers hold are not among them", ("queue",)
    ),
    "presend_queue_consumers": _Gauge("Workers that consume a queue now (RabbitMQ)", ("queue",)),
    "presend_queue_not_empty_seconds": _Gauge(
        "Since when upkeep has not seen the queue empty. No broker tells a message's age: the oldest is at "
        "most so old, or as old as upkeep",
        ("queue",),
    ),
    "presend_workers_alive": _Gauge("Processes of a lane whose sign of life is in Postgres", ("lane",)),
    "presend_outbox_batches": _Gauge("Batches whose events the broker has not confirmed for a second"),
    "presend_outbox_oldest_seconds": _Gauge("How long the oldest of them waits; 0: there is none"),
    "presend_dead_letters": _Gauge("Dead letters kept", ("task", "replayed")),
    "presend_gate_closed": _Gauge("1 while nothing may be bought: by the provider or by hand", ("by",)),
    "presend_lane_stopped": _Gauge("1 while a lane takes nothing from its queue", ("lane", "cause")),
    "presend_provider_failing": _Gauge(
        "1 while a lane asks the provider for one number at a time, because it lost two calls in a row",
        ("lane",),
    ),
    "presend_budget_limit_numbers": _Gauge(
        "Numbers bought today after which a lane buys no more; absent without a budget", ("lane",)
    ),
    "presend_budget_taken_numbers": _Gauge("Numbers bought today, those being bought included"),
    "presend_provider_balance_numbers": _Gauge("What /balance says: look-ups left"),
    "presend_provider_postpaid": _Gauge("1: the provider bills afterwards, and the balance may be negative"),
    "presend_spend_day_numbers": _Gauge("Numbers billed in the last 24 hours"),
    "presend_balance_left_seconds": _Gauge(
        "How long a prepaid balance lasts at the spend of the last 24 hours; absent without spend"
    ),
}
_REFRESHED = "presend_fleet_refreshed_timestamp_seconds"
_REFRESHED_WORDS = "When upkeep last read these, by source: database, broker, provider"
_LEADER = "presend_upkeep_leader"
_LEADER_WORDS = "1: this upkeep has the lock and does the work; 0: it stands by"

Values = Mapping[str, Mapping[tuple[str, ...], float]]
"""By metric and label values."""


class _Fleet(Collector):
    def __init__(self) -> None:
        self._lock = Lock()
        self.leader: bool | None = None
        self.seen: dict[str, tuple[float, Values]] = {}
        REGISTRY.register(self)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        yield from self._families().values()
        yield GaugeMetricFamily(_LEADER, _LEADER_WORDS)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        if self.leader is None:
            return
        yield GaugeMetricFamily(_LEADER, _LEADER_WORDS, value=self.leader)
        families = self._families()
        with self._lock:
            for source, (at, values) in self.seen.items():
                families[_REFRESHED].add_metric([source], at)
                for name, samples in values.items():
                    for labels, value in samples.items():
                        families[name].add_metric(labels, value)
        yield from (family for family in families.values() if family.samples)

    def replace(self, source: str, at: float, values: Values) -> None:
        with self._lock:
            self.seen[source] = (at, values)

    def clear(self) -> None:
        with self._lock:
            self.seen = {}

    @staticmethod
    def _families() -> dict[str, GaugeMetricFamily]:
        families = {
            name: GaugeMetricFamily(name, its.documentation, labels=its.labels)
            for name, its in GAUGES.items()
        }
        families[_REFRESHED] = GaugeMetricFamily(_REFRESHED, _REFRESHED_WORDS, labels=["source"])
        return families


_fleet = _Fleet()


def lead(leads: bool) -> None:
    """Say whether this upkeep has the lock; without it, it shows nothing of the fleet."""
    _fleet.leader = leads
    if not leads:
        _fleet.clear()


def show(source: str, values: Values, *, at: float) -> None:
    """Show what was read from a source at this moment (Unix seconds), in the place of what was there."""
    _fleet.replace(source, at, values)
