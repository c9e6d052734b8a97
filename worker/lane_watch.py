"""The watch: a thread that looks about once a second which lanes must not take messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from worker import logs
from worker.errors import StorageUnavailable
from worker.portability.requests import Lane
from worker.storage.lane_stops import Stop

log = logs.get(__name__)

LOOK_SECONDS = 1.0

Stops = Mapping[Lane, Stop]


class LaneWatch:
    """Looks at once when made, then about once a second on a thread of its own, and tells after each look.

    Where Postgres does not answer the last state stands: nothing can be bought then anyway.
    """

    def __init__(self, look: Callable[[], Stops], tell: Callable[[], None]) -> None:
        self._look = look
        self._tell = tell
        self._asked = threading.Event()
        self._ended = False
        self.stops: Stops = {}
        """Which lanes must not take messages, and why."""
        self._look_once()
        threading.Thread(target=self._watch, name="lane-watch", daemon=True).start()

    def look_soon(self) -> None:
        """Look now rather than within a second."""
        self._asked.set()

    def end(self) -> None:
        """Look no more."""
        self._ended = True
        self._asked.set()

    def _watch(self) -> None:
        while True:
            self._asked.wait(LOOK_SECONDS)
            self._asked.clear()
            if self._ended:
                return
            self._look_once()
            self._tell()

    def _look_once(self) -> None:
        try:
            stops = self._look()
        except StorageUnavailable as exc:
            log.warning("lanes_not_looked_at", error=str(exc))
            return
        except Exception:  # a defect must not end the watch: messages would be held for ever
            log.exception("lane_watch_failed")
            return
        for lane in stops.keys() - self.stops.keys():
            stop = stops[lane]
            log.warning("lane_stopped", lane=lane, cause=stop.cause, by=stop.by, reason=stop.reason)
        for lane in self.stops.keys() - stops.keys():
            log.warning("lane_goes_on", lane=lane, was_stopped_for=self.stops[lane].cause)
        self.stops = stops
