"""One look at the running system, shared by everybody who looks within a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, Engine

from worker.console.watch import Sight, Watch
from worker.portability.requests import Lane
from worker.storage import breaker, dead_letters, engine, gate, lane_stops, presence, reports
from worker.storage.breaker import FailingLane
from worker.storage.budget import Budget
from worker.storage.gate import ClosedGate
from worker.storage.lane_stops import Stop
from worker.storage.presence import Alive
from worker.storage.reports import Latency, OpenCalls, Unsent

RATE_SECONDS = 10.0
CHART_STEP_SECONDS = 10
CHART_STEPS = 180
_FRESH_SECONDS = 1.0
_UNSENT_TOO_LONG = timedelta(seconds=30)
_QUEUE_LANES = (Lane.RECHARGE, Lane.SMS)


@dataclass(frozen=True, slots=True)
class LaneNow:
    """A lane as of now."""

    lane: Lane
    # requests decided a second, over the last ten
    rate: float
    # messages in its queue; None: it has none, or the broker does not say
    waiting: int | None
    open: OpenCalls | None
    workers: int
    slots: int
    stop: Stop | None
    failing: FailingLane | None

    @property
    def busy_slots(self) -> int:
        """Calls on the wire."""
        return 0 if self.open is None else self.open.calls

    @property
    def state(self) -> str:
        """What it does, in one word: the key of its text."""
        if self.stop is not None:
            return self.stop.cause
        if not self.workers:
            return "idle" if self.lane is Lane.DIRECT else "no_worker"
        return "failing" if self.failing is not None else "running"


@dataclass(frozen=True, slots=True)
class Look:
    """The system as of a moment."""

    at: datetime
    lanes: Sequence[LaneNow]
    gates: Sequence[ClosedGate]
    unsent: Unsent
    dead_letters: int
    latency: Latency
    workers: Sequence[Alive]
    sight: Sight

    @property
    def events_stuck(self) -> bool:
        """Whether events wait longer for their confirms than the relay lets them."""
        oldest = self.unsent.oldest_at
        return oldest is not None and self.at - oldest > _UNSENT_TOO_LONG


class Live:
    """Looks when asked, at most once a second; thread-safe."""

    def __init__(
        self, database: Engine, watch: Watch, *, daily: Budget, slots: Mapping[Lane, int], account: str | None
    ) -> None:
        self._database = database
        self._watch = watch
        self._slots = slots
        self._causes: list[lane_stops.Cause] = [
            lane_stops.paused,
            partial(lane_stops.gate_closed, account=account or gate.EVERY_ACCOUNT),
            partial(lane_stops.budget_spent, daily=daily),
        ]
        self._lock = threading.Lock()
        self._last: Look | None = None
        self._looked_at = 0.0
        self._series: tuple[float, list[list[float]]] | None = None

    def look(self) -> Look:
        """Return the system as it is, or was a second ago."""
        with self._lock:
            if self._last is None or time.monotonic() - self._looked_at > _FRESH_SECONDS:
                self._last = engine.read(self._database, self._look)
                self._looked_at = time.monotonic()
            return self._last

    def forget(self) -> None:
        """Look anew next time: somebody has just changed something."""
        with self._lock:
            self._last = None

    def chart(self) -> list[list[float]]:
        """Return the last half hour: times, then the rate a second of each lane, and of numbers bought."""
        with self._lock:
            if self._series is None or time.monotonic() - self._series[0] > CHART_STEP_SECONDS / 4:
                self._series = time.monotonic(), engine.read(self._database, _chart)
            return self._series[1]

    def _look(self, connection: Connection) -> Look:
        rates = reports.rates(connection, seconds=RATE_SECONDS)
        open_calls = reports.open_calls(connection)
        stops = lane_stops.read(connection, self._causes)
        failing = {each.lane: each for each in breaker.failing(connection)}
        workers = presence.alive(connection)
        sight = self._watch.sight
        lanes = []
        for lane in Lane:
            count = sum(lane in worker.lanes for worker in workers)
            lanes.append(
                LaneNow(
                    lane=lane,
                    rate=rates.get(lane, 0.0),
                    waiting=sight.waiting.get(lane.value) if lane in _QUEUE_LANES else None,
                    open=open_calls.get(lane),
                    workers=count,
                    slots=count * self._slots[lane],
                    stop=stops.get(lane),
                    failing=failing.get(lane),
                )
            )
        return Look(
            at=datetime.now(UTC),
            lanes=lanes,
            gates=gate.closed(connection),
            unsent=reports.unsent(connection),
            dead_letters=dead_letters.count(connection),
            latency=reports.latency(connection),
            workers=workers,
            sight=sight,
        )


def _chart(connection: Connection) -> list[list[float]]:
    step = CHART_STEP_SECONDS
    last = int(time.time()) // step * step
    times = [last - step * back for back in range(CHART_STEPS, 0, -1)]
    since, until = (datetime.fromtimestamp(at, UTC) for at in (times[0], last))
    decided = reports.series(connection, since=since, until=until, step_seconds=step)
    bought = reports.bought_series(connection, since=since, until=until, step_seconds=step)
    lanes = [[round(decided.get((at, lane), 0) / step, 2) for at in times] for lane in Lane]
    return [list(map(float, times)), *lanes, [round(bought.get(at, 0) / step, 2) for at in times]]
