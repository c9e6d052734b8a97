"""The one core of a worker process: its threads take it in equal turns, as the interpreter lets them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from worker.simulation.agenda import Agenda


@dataclass(slots=True)
class Core:
    """Egalitarian processor sharing: of n threads that want it, each gets the n-th part."""

    agenda: Agenda
    # seconds of work done
    busy_seconds: float = field(default=0.0, init=False)
    # seconds of work that a thread which had never stopped would have been given
    _served: float = field(default=0.0, init=False)
    _looked_at: float = field(default=0.0, init=False)
    # (served then, order, what follows)
    _threads: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list, init=False)
    _order: itertools.count[int] = field(default_factory=itertools.count, init=False)
    # tells a plan that has been overtaken from the one that counts
    _plan: int = field(default=0, init=False)

    def work(self, seconds: float, then: Callable[[], object]) -> None:
        """Take the core for so many seconds of work, however long that takes; ``then`` follows."""
        self.busy_seconds += seconds
        self._look()
        heapq.heappush(self._threads, (self._served + seconds, next(self._order), then))
        self._plan_next()

    def _look(self) -> None:
        now = self.agenda.now
        if self._threads:
            self._served += (now - self._looked_at) / len(self._threads)
        self._looked_at = now

    def _plan_next(self) -> None:
        self._plan += 1
        left = max(0.0, self._threads[0][0] - self._served)
        self.agenda.after(left * len(self._threads), partial(self._end, self._plan))

    def _end(self, plan: int) -> None:
        if plan != self._plan:
            return
        self._looked_at = self.agenda.now
        self._served, _, then = heapq.heappop(self._threads)
        if self._threads:
            self._plan_next()
        then()
