"""What a process holds now: read when it is scraped, never counted along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.metrics.messages import NO_LANE
from worker.metrics.registry import REGISTRY
from worker.portability.requests import Lane


class Held(NamedTuple):
    """Messages of a lane that are neither acknowledged nor given back."""

    messages: int
    oldest_seconds: float


Snapshot = Callable[[], Mapping[str, int]]
"""A lane's ``slots``, the ``busy`` ones, and the requests ``waiting``."""
HeldNow = Callable[[], Mapping[Lane | None, Held]]


class _Lanes(Collector):
    """The gauges, and where their values come from."""

    def __init__(self) -> None:
        self.snapshots: list[tuple[Lane, Snapshot]] = []
        self.held: HeldNow | None = None
        self.works_for: Collection[Lane] = ()
        REGISTRY.register(self)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families().values()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        families = self._families()
        sums: dict[Lane, Counter[str]] = {}
        for lane, snapshot in list(self.snapshots):
            sums.setdefault(lane, Counter()).update(snapshot())
        for lane, numbers in sums.items():
            for name, value in numbers.items():
                families[name].add_metric([lane], value)
        if self.held is not None:
            none: dict[Lane | None, Held] = dict.fromkeys(self.works_for, Held(0, 0.0))
            for of, held in (none | dict(self.held())).items():
                families["held"].add_metric([of or NO_LANE], held.messages)
                families["oldest"].add_metric([of or NO_LANE], held.oldest_seconds)
        return families.values()

    @staticmethod
    def _families() -> dict[str, GaugeMetricFamily]:
        words = {
            "slots": ("presend_slots", "Batches that may run at once"),
            "busy": ("presend_slots_busy", "Batches that run now"),
            "waiting": ("presend_requests_waiting", "Requests that wait in this process for a batch"),
            "held": ("presend_messages_held", "Messages received and not yet settled by this process"),
            "oldest": (
                "presend_messages_held_oldest_seconds",
                "How long this process holds its oldest unsettled message",
            ),
        }
        return {key: GaugeMetricFamily(*named, labels=["lane"]) for key, named in words.items()}


_lanes = _Lanes()


def show(lane: Lane, snapshot: Snapshot) -> None:
    """Show a lane of this process from now on; a front door's two of one name are added up."""
    _lanes.snapshots.append((lane, snapshot))


def hide(lane: Lane, snapshot: Snapshot) -> None:
    """Show it no more."""
    if (lane, snapshot) in _lanes.snapshots:
        _lanes.snapshots.remove((lane, snapshot))


def show_held(held: HeldNow, works_for: Collection[Lane]) -> None:
    """Show the messages this process holds; of the lanes it works for also that it holds none."""
    _lanes.held, _lanes.works_for = held, works_for
