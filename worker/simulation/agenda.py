"""Simulated time: what happens when, and a clock that jumps from one happening to the next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Agenda:
    """Happenings by moment; those of one moment in the order in which they were planned."""

    # seconds since the beginning
    now: float = 0.0
    _planned: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def clock(self) -> float:
        """The moment, as :class:`~worker.batching.Batcher` asks for it."""
        return self.now

    def at(self, moment: float, do: Callable[[], object]) -> None:
        """Plan a happening; what lies in the past happens next."""
        heapq.heappush(self._planned, (moment, next(self._order), do))

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Plan a happening so long from now."""
        heapq.heappush(self._planned, (self.now + seconds, next(self._order), do))

    def run(self) -> None:
        """Let everything happen, and what it leads to, until nothing is planned."""
        planned = self._planned
        while planned:
            moment, _, do = heapq.heappop(planned)
            self.now = max(self.now, moment)
            do()
