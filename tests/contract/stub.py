"""A provider of raw sockets, for what no well-behaved server can be made to send."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Behaviour = Callable[["Connection"], None]


class Connection:
    """One accepted connection."""

    def __init__(self, raw: socket.socket, stopping: threading.Event) -> None:
        self.raw = raw
        self.stopping = stopping
        self.requests: list[bytes] = []

    def read_request(self) -> bytes:
        """The next whole request; empty at the connection's end."""
        data = b""
        while b"\r\n\r\n" not in data:
            if not (chunk := self.raw.recv(65536)):
                return b""
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line.lower().partition(b":") for line in head.split(b"\r\n")]
        length = next(int(value) for name, _, value in lines if name == b"content-length")
        while len(body) < length:
            body += self.raw.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def send(self, data: bytes) -> None:
        self.raw.sendall(data)

    def drip(self, data: bytes, every_seconds: float) -> None:
        """A byte at a time, until the peer has had enough."""
        for byte in data:
            self.send(bytes([byte]))
            if self.stopping.wait(every_seconds):
                return

    def reset(self) -> None:
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()

    def wait_for_the_end(self) -> None:
        """Stay silent until the peer closes."""
        while self.raw.recv(65536):
            pass


class Stub:
    """Where it listens, and the connections it was given."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections: list[Connection] = []
        self._behaviour = behaviour
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self.listener.accept()
                connection = Connection(raw, self._stopping)
                self.connections.append(connection)
                thread = threading.Thread(target=self._serve, args=[connection], daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: Connection) -> None:
        with contextlib.suppress(OSError), connection.raw:
            self._behaviour(connection)

    def close(self) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.raw.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)


@contextmanager
def stub(behaviour: Behaviour) -> Iterator[Stub]:
    served = Stub(behaviour)
    try:
        yield served
    finally:
        served.close()


def http(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answering(*answers: bytes) -> Behaviour:
    """Send these to the requests of a connection in turn, then close it."""

    def behave(connection: Connection) -> None:
        for answer in answers:
            if not connection.read_request():
                return
            connection.send(answer)

    return behave
