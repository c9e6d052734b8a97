"""A holder: one consuming channel, and what it has taken and not yet settled.

It says every two seconds that it lives, on a connection and a thread of its own, so that no busy event loop
can miss it; whoever does so also gives back what holders silent for ten seconds held. A holder that was taken
for dead by mistake (its process was stopped for a while) is merely told at its next take: what it had is
delivered to others as well, and its acknowledgements find nothing.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from worker import logs
from worker.redis_broker.scripts import DEATHS, GIVE_BACK, HELD, KEEP, LET_GO, TAKE

log = logs.get(__name__)

DEAD_SECONDS = 10
"""After so long a silence a holder is dead."""
_KEEP_SECONDS = 2.0
_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Held:
    """An element taken from a list."""

    # counts up; no other element of this holder ever had it
    number: int
    # the list it came from, and goes back to
    list: str
    element: bytes
    # how many of its holders died
    deaths: int


class Holder:
    """Holds messages in Redis until they are settled. Thread-safe, but for `take_command` and `taken`."""

    def __init__(self, client: redis.Redis) -> None:
        self.name = uuid.uuid4().hex
        self._client = client
        self._key = HELD + self.name
        self._may_register = True
        self._last_known = 0
        # of those whose holders died: their digests, by number
        self._digests: dict[int, str] = {}
        self._settled: deque[int] = deque()
        # One at a time talks to Redis: what is settled must not be given back.
        self._talking = threading.Lock()
        self._wake = threading.Event()
        self._let_go = False
        self._gone = False
        threading.Thread(target=self._run, name="redis-holder", daemon=True).start()

    # -- taking, on the consumer's thread -----------------------------------------------------

    def take_command(
        self, lists: Sequence[str], *, most: int, most_of_each: Sequence[int]
    ) -> tuple[Any, ...]:
        """The command that takes up to `most` elements of the lists; send it, then read `taken`."""
        # The whole script each time: a kilobyte or two, and nothing to find out after a restart of Redis.
        return (
            "EVAL", TAKE, 1 + len(lists), self._key, *lists,
            self.name, int(self._may_register), self._last_known, most, *most_of_each,
        )  # fmt: skip

    def taken(self, answer: Sequence[tuple[int, bytes, bytes, int]] | None) -> list[Held] | None:
        """What a take brought; None if Redis does not know this holder: the next take makes it known."""
        self._may_register = answer is None
        if answer is None:
            return None
        taken = [Held(number, name.decode(), element, deaths) for number, name, element, deaths in answer]
        for held in taken:
            self._last_known = max(self._last_known, held.number)
            if held.deaths:
                self._digests[held.number] = _digest(held.element)
        return taken

    def take_now(self, lists: Sequence[str], *, most: int) -> list[Held]:
        """Take up to `most` elements, without a wait."""
        taken = None
        while taken is None:
            _, *script = self.take_command(lists, most=most, most_of_each=[most] * len(lists))
            taken = self.taken(self._client.eval(*script))
        return taken

    # -- settling ----------------------------------------------------------------------------

    def settle(self, number: int) -> None:
        """Forget a message for good, soon: Redis is told in the background, as often as it takes."""
        self._settled.append(number)
        self._wake.set()

    def give_back(self, numbers: Iterable[int]) -> None:
        """Put messages back into their queues; what is not held any more is left out."""
        with self._talking:
            if not self._gone:
                self._tell_settled()
                self._client.eval(GIVE_BACK, 1, self._key, *map(str, numbers))

    def let_go(self) -> None:
        """Give everything back; where Redis cannot be reached, as soon as it can be. Never raises."""
        self._let_go = True
        try:
            self._give_all_back()
        except redis.RedisError as exc:
            log.info("gives_back_later", error=str(exc))
        self._wake.set()

    def _give_all_back(self) -> None:
        with self._talking:
            if self._gone:
                return
            self._tell_settled()
            self._client.eval(LET_GO, 0, self.name)
            self._gone = True
            self._client.connection_pool.disconnect()

    def _tell_settled(self) -> None:
        numbers = [self._settled.popleft() for _ in range(len(self._settled))]
        if not numbers:
            return
        digests = [self._digests[number] for number in numbers if number in self._digests]
        try:
            self._client.hdel(self._key, *map(str, numbers))
            if digests:
                self._client.hdel(DEATHS, *digests)
        except redis.RedisError:
            self._settled.extendleft(reversed(numbers))
            raise
        for number in numbers:
            self._digests.pop(number, None)

    # -- on its own thread -------------------------------------------------------------------

    def _run(self) -> None:
        keep_at = 0.0
        while not self._gone:
            try:
                if self._let_go:
                    self._give_all_back()
                    return
                with self._talking:
                    self._tell_settled()
                    if time.monotonic() >= keep_at:
                        self.keep()
                        keep_at = time.monotonic() + _KEEP_SECONDS
            except redis.RedisError as exc:
                log.debug("holder_not_heard", error=str(exc))
                time.sleep(_RETRY_SECONDS)
                continue
            self._wake.wait(max(0.0, keep_at - time.monotonic()))
            self._wake.clear()

    def keep(self) -> None:
        """Say that it lives, and give back what the dead held."""
        given = self._client.eval(KEEP, 0, self.name, DEAD_SECONDS)
        if given:
            log.warning("gave_back_messages_of_the_dead", messages=given)


def _digest(element: bytes) -> str:
    return hashlib.sha1(element, usedforsecurity=False).hexdigest()
