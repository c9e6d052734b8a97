"""How many messages of a queue RabbitMQ may hand a process at once: as many as make items enough.

RabbitMQ counts messages, and one has an item or a thousand. As many as let single-number messages fill every
batch would be thirteen million numbers in the other case: more than a process has memory for, and none left
for the others. So few are asked for at first, and more once it is seen that they hold little.
"""

from __future__ import annotations

from worker.carrier.protocol import MAX_BATCH

_STEP = 10
"""Times as many messages are asked for, where those held turn out to be small. Those that come next may be
large all the same."""


class Prefetch:
    """Of one queue."""

    def __init__(self, most_items: int) -> None:
        self._most_items = most_items
        self._fewest = max(1, most_items // MAX_BATCH)
        self.messages = self._fewest
        """How many messages may be held; none while some that came are not even read."""

    def look(self, *, messages: int, items: int, unread: int) -> bool:
        """See what is held now; return whether another number of messages may be held from here on."""
        before = self.messages
        if unread:
            self.messages = 0
        elif not self.messages:
            self.messages = self._fewest if items <= self._most_items else 0
        elif messages >= self.messages:
            room = self._most_items * messages // max(1, items)
            more = min(self.messages * _STEP, room, self._most_items)
            # asking for another number takes three round trips
            self.messages = more if more >= 2 * self.messages else self.messages
        return self.messages != before
