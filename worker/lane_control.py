"""Which lanes must not take messages, and stopping one by hand: what Postgres holds for every worker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sqlalchemy import Engine

from worker.portability.requests import Lane
from worker.storage import engine, lane_pauses, lane_stops
from worker.storage.lane_pauses import PausedLane
from worker.storage.lane_stops import Cause, Stop


class LaneControl:
    """Reads and writes the lanes' stops; each method raises ``StorageUnavailable``."""

    def __init__(self, database: Engine, *, causes: Sequence[Cause]) -> None:
        self._database = database
        self._causes = causes

    def stops(self) -> dict[Lane, Stop]:
        """Return the lanes that must not take messages now, and why."""
        return engine.read(self._database, partial(lane_stops.read, causes=self._causes))

    def pause(self, lane: Lane, *, by: str, reason: str) -> PausedLane:
        """Pause a lane for every worker; return the pause that stands, which is the first one."""
        return engine.transact(self._database, lambda to: lane_pauses.pause(to, lane, by=by, reason=reason))

    def resume(self, lane: Lane, *, by: str, reason: str) -> bool:
        """Let a lane go on in every worker; return whether it was paused."""
        return engine.transact(self._database, lambda to: lane_pauses.resume(to, lane, by=by, reason=reason))
