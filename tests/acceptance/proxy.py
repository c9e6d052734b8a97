"""A TCP proxy whose connections a test can cut, in front of a broker."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards every connection to one address, until it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._refusing = False
        # of answers, until everything is cut; None: never
        self._bytes_left: int | None = None
        # held back in either direction
        self._delay_seconds = 0.0
        # connections that carry nothing any more, though they stay open
        self._silenced: set[socket.socket] = set()
        self.accepted = 0
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> int:
        """Reset every connection that is open now; how many."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        return len(sockets) // 2

    def cut_after(self, count: int | None) -> None:
        """Cut everything once the server has answered so many more bytes; None: do not."""
        with self._lock:
            self._bytes_left = count

    def delay(self, seconds: float) -> None:
        """Hold back whatever is sent, in either direction, for so long; 0 ends it."""
        self._delay_seconds = seconds

    def silence(self) -> None:
        """Let every connection that is open now carry nothing any more: no data, no end, no reset."""
        with self._lock:
            self._silenced = self._sockets.copy()

    def refuse(self, refusing: bool) -> None:
        """Close new connections at once, or take them again."""
        self._refusing = refusing

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            self.accepted += 1
            try:
                server = socket.create_connection(self._target)
            except OSError:  # what is behind it is down
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}  # may be cut from here on
            for source, sink in ((client, server), (server, client)):
                answers = source is server
                threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self._delay_seconds)
                if source in self._silenced:
                    continue
                let_through = self._let_through(len(data)) if answers else len(data)
                sink.sendall(data[:let_through])
                if let_through < len(data):
                    self.cut()
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            known = self._sockets & {source, sink}
            self._sockets -= known
        for one in known:
            one.close()

    def _let_through(self, count: int) -> int:
        with self._lock:
            if self._bytes_left is None:
                return count
            let_through = min(count, self._bytes_left)
            self._bytes_left = None if let_through < count else self._bytes_left - count
            return let_through


@contextlib.contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy in front of what ``url`` names, and the URL that leads through it."""
    where = urlsplit(url)
    assert where.hostname
    proxy = Proxy(
        where.hostname, where.port or {"amqp": 5672, "redis": 6379, "postgresql": 5432}[where.scheme]
    )
    user = where.netloc.rpartition("@")[0]
    netloc = f"{user}@127.0.0.1:{proxy.port}" if user else f"127.0.0.1:{proxy.port}"
    try:
        yield proxy, urlunsplit(where._replace(netloc=netloc))
    finally:
        proxy.close()
