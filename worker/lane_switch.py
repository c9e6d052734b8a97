"""The switch: starts and stops consuming a lane's queue, as the watch says and as there is room for more.

On the consumer's own thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from worker.feed import Feed
from worker.lane_watch import LaneWatch, Stops
from worker.portability.requests import Lane


class SwitchedConsumer(Protocol):
    """What the switch needs of Celery's consumer."""

    # kombu's event loop: the consumer's own thread
    hub: Any

    def lanes(self) -> Iterable[Lane]:
        """Return the lanes this process was started for."""

    def consume(self, lane: Lane, *, prefetch: int) -> None:
        """Take messages from a lane's queue, if it is not done yet, and hold at most so many of them."""

    def stop_consuming(self, lane: Lane) -> None:
        """Take no more messages from a lane's queue."""


class LaneSwitch:
    """Keeps what this process consumes as Postgres says; also sees that no message is held too long."""

    def __init__(self, consumer: SwitchedConsumer, feed: Feed, look: Callable[[], Stops]) -> None:
        self._consumer = consumer
        self._feed = feed
        self.watch = LaneWatch(lambda: self._of_this_process(look()), tell=self._told)

    def connected(self) -> None:
        """Leave stopped lanes out; called at every (re)connection, before it consumes."""
        for lane in self._consumer.lanes():
            if lane in self.watch.stops:
                self._stop(lane)

    def prefetch_changed(self) -> None:
        """More or fewer messages of a lane may be held."""
        self._turn()

    def _of_this_process(self, stops: Stops) -> Stops:
        """A lane's stop is told by whoever serves the lane, and by nobody else."""
        lanes = list(self._consumer.lanes())
        return {lane: stop for lane, stop in stops.items() if lane in lanes}

    def _told(self) -> None:
        self._consumer.hub.call_soon(self._turn)

    def _turn(self) -> None:
        for lane in self._consumer.lanes():
            # every time: what comes out of a call only now has to go back too
            if lane in self.watch.stops:
                self._stop(lane)
            else:
                self._feed.go_on(lane)
                self._consumer.consume(lane, prefetch=self._feed.prefetch(lane))
        self._feed.give_back_old()

    def _stop(self, lane: Lane) -> None:
        self._consumer.stop_consuming(lane)
        self._feed.stop(lane)
