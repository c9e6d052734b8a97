"""Network streams under one deadline a call, which tell a request that left from one that did not.

httpx's time-outs are per read, so a server that drips a byte a second outlasts them; here every connect,
read and write gets what is left of the call's own deadline (name resolution alone cannot be capped). And a
failed call may be asked again for free only if the request cannot have been processed. So a request is held
back until the answer is first read, and then goes out in one piece: until all of it is in the kernel's hands
every failure is a ``ConnectError`` or ``ConnectTimeout``, afterwards none is. A kept-alive connection the
server has closed meanwhile is noticed before anything is sent (``Call.stale``); what stays is a close that is
on its way while the request is sent, which nobody can tell from a lost answer.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import httpcore

_AT_ONCE = 8192
"""Octets: an answer for one number fits, one for 1000 takes some twenty. httpcore's pieces of 64 kB, each cut
to what came, left holes in the heap."""

_here = threading.local()


class Call:
    """One call on its thread: until when it may last, and whether a closed connection got in its way.

    A request is sent in the first half of its call's time or not at all: sent later, after a long wait for
    a connection, it would be billed and its answer most likely lost.
    """

    __slots__ = ("deadline", "send_by", "stale")

    def __init__(self, seconds: float) -> None:
        now = time.monotonic()
        self.send_by = now + seconds / 2
        self.deadline = now + seconds
        self.stale = False


@contextmanager
def calling(call: Call) -> Generator[None]:
    """Put the streams this thread uses under ``call``."""
    _here.call = call
    try:
        yield
    finally:
        _here.call = None


def _to_answer() -> float | None:
    """Seconds this thread's call has left; raises ``ReadTimeout`` if none."""
    call = _current()
    return None if call is None else _until(call.deadline, httpcore.ReadTimeout)


def _to_send() -> float | None:
    """Seconds this thread's call has left to be sent in; raises ``ConnectTimeout`` if none."""
    call = _current()
    return None if call is None else _until(call.send_by, httpcore.ConnectTimeout)


def _until(moment: float, error: type[httpcore.TimeoutException]) -> float:
    seconds = moment - time.monotonic()
    if seconds <= 0:
        raise error
    return seconds


def _current() -> Call | None:
    return getattr(_here, "call", None)


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens ``DeadlineStream``s, trying each address of a host within the one deadline."""

    def __init__(self) -> None:
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address that takes it."""
        del timeout  # the call's deadline stands for it
        options = list(socket_options or ())
        failure: Exception = httpcore.ConnectError()
        for address in _addresses(host, port):
            seconds = _to_send()
            try:
                stream = self._sockets.connect_tcp(address, port, seconds, local_address, options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
            else:
                return DeadlineStream(stream)
        raise failure


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise httpcore.ConnectError("the provider's host name does not resolve") from None
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class DeadlineStream(httpcore.NetworkStream):
    """A connection that sends each request in one piece, when its answer is first read."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._held: list[bytes] = []
        self._requests = 0

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hold the bytes back until the answer is read."""
        del timeout
        if buffer:
            self._held.append(buffer)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Send what is held, then read; ``ConnectError`` means the request was not sent whole."""
        del timeout
        if self._held:
            self._send()
        return self._stream.read(min(max_bytes, _AT_ONCE), _to_answer())

    def _send(self) -> None:
        request, self._held = b"".join(self._held), []
        seconds = _to_send()
        if self._requests and self._stream.get_extra_info("is_readable"):
            raise self._closed("the server closed the idle connection")
        try:
            self._stream.write(request, seconds)
        except httpcore.WriteTimeout:
            raise httpcore.ConnectTimeout from None
        except httpcore.WriteError:
            raise self._closed("the connection broke while sending") from None
        self._requests += 1

    def _closed(self, reason: str) -> httpcore.ConnectError:
        call = _current()
        if call is not None and self._requests:
            call.stale = True
        return httpcore.ConnectError(reason)

    def close(self) -> None:
        """Close the connection."""
        self._held = []
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Shake hands within the deadline."""
        del timeout
        seconds = _to_send()
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, seconds))

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks of a stream."""
        return self._stream.get_extra_info(info)
