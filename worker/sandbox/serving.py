"""uvicorn around the sandbox: in the foreground, or in a thread of a test."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from worker.carrier.listening import QuietServer, listen, url_of
from worker.carrier.protocol import FeeType
from worker.sandbox.provider import DEFAULT_APIKEY, DEFAULT_BALANCE, Account, Latency, Sandbox
from worker.sandbox.unruly import SandboxProtocol

DEFAULT_PORT = 8400


def run(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    apikey: str = DEFAULT_APIKEY,
    balance: int = DEFAULT_BALANCE,
    fee_type: FeeType = FeeType.PREPAID,
    latency_scale: float = 1.0,
    seed: int = 0,
    bill_log: Path | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a sandbox until SIGINT or SIGTERM; ``on_ready`` is told its base URL.

    Raises ``SettingsError`` where the port is taken.
    """
    sandbox = Sandbox(
        accounts=[Account(apikey, fee_type, balance)],
        seed=seed,
        latency=Latency(scale=latency_scale),
        bill_log=bill_log,
    )
    listener = listen(host, port)
    try:
        if on_ready is not None:
            on_ready(url_of(listener))
        _Server(sandbox).run(sockets=[listener])
    finally:
        listener.close()


@contextmanager
def serving(sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """Serve ``sandbox`` from a thread of this process, on a free port by default; yields its base URL."""
    listener = listen(host, port)
    server = _Server(sandbox)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


class _Server(QuietServer):
    """It ends at once."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox.app(), graceful_seconds=1, http=SandboxProtocol)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; callers of a hanging answer are cut off."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await super().shutdown(sockets)
