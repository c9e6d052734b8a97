"""Messages that are held: received over this connection, and neither acknowledged nor given back.

Celery's own lists, which Flower and ``celery inspect`` show, are kept beside it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from itertools import takewhile

from celery.worker import state

from worker import tracing
from worker.deliveries import Delivery
from worker.metrics.lanes import Held
from worker.metrics.messages import DROPPED
from worker.portability.requests import Lane


class Unsettled:
    """The messages held, oldest first. Used by the consumer's thread alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # each with the monotonic moment of its receipt
        self._held: dict[Delivery, float] = {}
        # by lane, whose queue has its name; a message not read yet counts as one
        self._items: Counter[str | None] = Counter()
        self._messages: Counter[str | None] = Counter()

    def add(self, delivery: Delivery) -> None:
        """Hold a message."""
        self._held[delivery] = self._clock()
        self._items[delivery.lane] += delivery.items
        self._messages[delivery.lane] += 1
        state.task_reserved(delivery)

    def expect(self, delivery: Delivery, items: int) -> None:
        """Note how many items a message that is held turned out to have."""
        self._items[delivery.lane] += items - delivery.items
        delivery.expect(items)

    def messages(self, lane: str) -> int:
        """How many messages of the lane are held."""
        return self._messages[lane]

    def items(self, lane: str) -> int:
        """How many items they have."""
        return self._items[lane]

    def holds(self, delivery: Delivery) -> bool:
        """Return whether the message still is held."""
        return delivery in self._held

    def begin(self, delivery: Delivery) -> bool:
        """Note that a batch has taken the message; return whether it still is held."""
        if delivery not in self._held:
            return False
        # as state.task_accepted does, which takes 5 us for its Counter.update
        state.active_requests.add(delivery)
        state.total_count[delivery.name] += 1
        state.all_total_count[0] += 1
        return True

    def remove(self, delivery: Delivery) -> bool:
        """Hold a message no more; return whether it still was held."""
        if self._held.pop(delivery, None) is None:
            return False
        self._items[delivery.lane] -= delivery.items
        self._messages[delivery.lane] -= 1
        state.task_ready(delivery)
        return True

    def clear(self) -> None:
        """Hold none: the connection is gone, and the broker delivers them again."""
        for delivery in list(self._held):
            self.remove(delivery)
            tracing.ended(delivery.trace, DROPPED)

    def by_lane(self) -> dict[Lane | None, Held]:
        """How many messages of each lane are held, and for how long the oldest; from any thread."""
        now = self._clock()
        found: dict[Lane | None, Held] = {}
        for delivery, since in list(self._held.items()):
            before = found.get(delivery.lane)
            found[delivery.lane] = (
                Held(1, now - since) if before is None else before._replace(messages=before.messages + 1)
            )
        return found

    def held_for(self, seconds: float) -> list[Delivery]:
        """Return the messages held for so long."""
        since = self._clock() - seconds
        return [one for one, _ in takewhile(lambda held: held[1] <= since, self._held.items())]
