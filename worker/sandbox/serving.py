"""uvicorn around the sandbox: in the foreground, or in a thread of a test."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from worker.carrier.protocol import FeeType
from worker.errors import SettingsError
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
    listener = _listen(host, port)
    try:
        if on_ready is not None:
            on_ready(_url(host, listener.getsockname()[1]))
        _Server(sandbox).run(sockets=[listener])
    finally:
        listener.close()


@contextmanager
def serving(sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """Serve ``sandbox`` from a thread of this process, on a free port by default; yields its base URL."""
    listener = _listen(host, port)
    server = _Server(sandbox)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield _url(host, listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn without an access log, whose lines would hold keys and numbers; it ends at once."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(
            uvicorn.Config(
                sandbox.app(),
                http=SandboxProtocol,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="error",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; callers of a hanging answer are cut off."""
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it each answer,
    # which uvicorn writes in two pieces, waits 40 ms for the client's delayed acknowledgement
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as exc:
        listener.close()
        if exc.errno in {errno.EADDRINUSE, errno.EACCES}:
            reason = "is taken" if exc.errno == errno.EADDRINUSE else "may not be used by this user"
            raise SettingsError(f"port {port} on {host} {reason}: choose another with --port") from exc
        raise
    return listener


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
