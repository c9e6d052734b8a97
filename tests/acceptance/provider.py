"""The sandbox, which also remembers each call from its beginning: who asks is killed in mid-call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.acceptance.waiting import eventually
from worker.portability.records import Status
from worker.sandbox.provider import Account, Latency, Sandbox
from worker.sandbox.subscribers import subscriber


@dataclass
class Asked:
    """One call as the provider saw it."""

    mobiles: tuple[str, ...]
    # POSIX seconds
    began: float
    ended: float | None = None


class WatchedSandbox(Sandbox):
    """Counts nothing itself: the bill is the sandbox's own."""

    def __init__(self, *, latency: Latency | None = None) -> None:
        super().__init__(latency=latency or Latency(scale=0))
        self.asked: list[Asked] = []
        self.keys_checked = 0

    def ask(self, apikey: str, mobiles: Sequence[str], *rest: Any) -> Any:
        call = Asked(tuple(mobiles), time.time())
        self.asked.append(call)
        try:
            return super().ask(apikey, mobiles, *rest)
        finally:
            call.ended = time.time()

    def check(self, apikey: str) -> Account:
        self.keys_checked += 1  # by each question, one for the balance too
        return super().check(apikey)

    def in_flight(self) -> list[Asked]:
        """Calls that were asked and are not answered yet."""
        return [call for call in self.asked if call.ended is None]

    def wait_for_call(self, numbers: int = 1, *, seconds: float = 20.0) -> Asked:
        """Wait until a call for at least so many numbers is being worked."""
        return eventually(
            lambda: next((call for call in self.in_flight() if len(call.mobiles) >= numbers), None),
            f"a call for {numbers} numbers in flight",
            seconds=seconds,
        )  # type: ignore[return-value]

    def largest(self) -> int:
        """Numbers in the largest call so far."""
        return max((len(call.mobiles) for call in self.asked), default=0)

    def bills(self) -> dict[str, int]:
        """How often each number was billed."""
        return dict(self.bill._times_billed)


def plain_numbers(count: int, *, first: int = 0) -> list[str]:
    """Numbers of CMCC that exist and were never ported, always the same ones."""
    found: list[str] = []
    candidate = 13900000000
    while len(found) < first + count:
        truth = subscriber(str(candidate))
        if truth.status is Status.NOT_PORTED and truth.current_operator == "CMCC":
            found.append(str(candidate))
        candidate += 7
    return found[first:]
