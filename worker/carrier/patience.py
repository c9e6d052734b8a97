"""How long a server waits for a request: uvicorn itself waits for ever once a part of it has come."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

HEAD_SECONDS = 30.0
"""From a connection's begin, or the answer before, to the end of the head."""
SILENCE_SECONDS = 30.0
"""Between two pieces of a body."""
SLOWEST_OCTETS_A_SECOND = 500.0
"""Of a body that has had ``SILENCE_SECONDS``: a slow line takes its time, a trickle holds no connection."""
ENDING_SECONDS = 1.0
"""Once the server ends, for a body that is still coming."""


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol that gives up a request which does not come: 408, if not yet answered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        # since when a body comes, in the loop's seconds; None: none does
        self._body_since: float | None = None
        self._octets = 0
        self._ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Count what comes."""
        self._octets += len(data)
        super().data_received(data)

    def handle_events(self) -> None:
        """Wait for what is still to come, also behind a request that was answered just now."""
        super().handle_events()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Answer what has come whole; a body that is still coming has a moment left."""
        super().shutdown()
        self._ending = True
        if self._timer is not None:
            self._wait_for(ENDING_SECONDS)

    def _wait(self) -> None:
        theirs = self.conn.their_state
        if theirs is h11.IDLE:
            if not self._in_head:
                self._wait_for(HEAD_SECONDS)
        elif theirs is not h11.SEND_BODY:
            self._stop_waiting()
        elif not self._ending:
            self._wait_for_body()
        self._in_head = theirs is h11.IDLE
        if theirs is not h11.SEND_BODY:
            self._body_since = None

    def _wait_for_body(self) -> None:
        now = self.loop.time()
        if self._body_since is None:
            self._body_since, self._octets = now, 0
        had = self._octets / SLOWEST_OCTETS_A_SECOND + self._body_since - now
        self._wait_for(SILENCE_SECONDS + min(0.0, had))

    def _wait_for(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            if self.conn.trailing_data[0]:  # nothing came: somebody opened it ahead of need
                self._say_too_late()
        elif not self._ending and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            self._body_since = None  # it is we who do not read
            self._wait_for_body()
            return
        else:
            if not self.cycle.response_started:
                self._say_too_late()
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _say_too_late(self) -> None:
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        answer = h11.Response(status_code=408, headers=headers, reason=STATUS_PHRASES[408])
        for event in (answer, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
