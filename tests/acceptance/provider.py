"""The sandbox, which also remembers each call from its beginning: who asks is killed in mid-call."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from threading import Event
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.acceptance.waiting import eventually
from worker.carrier.wire.spellings import BATCH_PATH, SINGLE_PATH
from worker.portability.records import Status
from worker.sandbox.provider import Account, Latency, Sandbox
from worker.sandbox.serving import serving
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
        # every call that came over HTTP, also one whose answer a fault swallows before it is worked
        self.arrived: list[Asked] = []
        self._let_in = Event()
        self._let_in.set()

    def app(self) -> ASGIApp:
        return _Watched(super().app(), self.arrived)

    def ask(self, apikey: str, mobiles: Sequence[str], *rest: Any) -> Any:
        call = Asked(tuple(mobiles), time.time())
        self.asked.append(call)
        try:
            self._let_in.wait()
            return super().ask(apikey, mobiles, *rest)
        finally:
            call.ended = time.time()

    def check(self, apikey: str) -> Account:
        self.keys_checked += 1  # by each question, one for the balance too
        return super().check(apikey)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Work no call until the block ends; those that are asked meanwhile are in flight so long."""
        self._let_in.clear()
        try:
            yield
        finally:
            self._let_in.set()

    def at_the_door(self) -> list[Asked]:
        """Calls that came over HTTP and are neither answered nor given up yet."""
        return [call for call in self.arrived if call.ended is None]

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


class _Watched:
    """Notes each call at the door, until it is answered or given up."""

    def __init__(self, app: ASGIApp, arrived: list[Asked]) -> None:
        self._app, self._arrived = app, arrived

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") not in {SINGLE_PATH, BATCH_PATH}:
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        body = b"".join(message.get("body", b"") for message in messages)
        call = Asked(tuple(number.decode() for number in _NUMBER.findall(body)), time.time())
        self._arrived.append(call)

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        try:
            await self._app(scope, again, send)
        finally:
            call.ended = time.time()


_NUMBER = re.compile(rb"1[3-9][0-9]{9}")


class Door:
    """The provider's address; shut, it refuses connections, and those that were open are gone."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox, self._open = sandbox, ExitStack()
        self.url = self._open.enter_context(serving(sandbox))

    def shut(self) -> None:
        self._open.close()

    def open(self) -> None:
        self._open.enter_context(serving(self._sandbox, port=urlsplit(self.url).port or 0))


def plain_numbers(wanted: int, *, first: int = 0) -> list[str]:
    """Numbers of CMCC that exist and were never ported, always the same ones."""
    return list(islice(endless_plain_numbers(), first, first + wanted))


def endless_plain_numbers() -> Iterator[str]:
    """All of them."""
    for candidate in count(13900000000, 7):
        truth = subscriber(str(candidate))
        if truth.status is Status.NOT_PORTED and truth.current_operator == "CMCC":
            yield str(candidate)
