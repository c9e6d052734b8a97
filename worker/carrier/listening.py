"""uvicorn as the contract needs it: no access log, sockets opened before it starts."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from worker.carrier.patience import PatientProtocol
from worker.errors import SettingsError


class QuietServer(uvicorn.Server):
    """uvicorn without an access log, whose lines would hold keys and numbers.

    Once ``should_exit`` is set it ends when the calls in progress are answered, at most ``graceful_seconds``
    later.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        graceful_seconds: float,
        http: Any = PatientProtocol,
        certfile: Path | None = None,
        keyfile: Path | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=http,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="error",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=int(graceful_seconds),
                ssl_certfile=certfile,
                ssl_keyfile=keyfile,
            )
        )


class GuidedServer(QuietServer):
    """One that leaves signals alone: who runs its loop says when it ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone; uvicorn would raise them again at its end."""
        yield


def listen(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Open a listening socket; ``SettingsError`` where the port is taken, naming the option to change."""
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
            raise SettingsError(f"port {port} on {host} {reason}: choose another with {option}") from exc
        raise
    return listener


def check_certificate(certfile: Path, keyfile: Path) -> None:
    """Raise ``SettingsError`` where the two files do not make a server for https."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password="")
    except (OSError, ValueError) as exc:
        why = type(exc).__name__
        raise SettingsError(
            f"--certfile and --keyfile cannot be used ({why}): give a certificate chain and its private "
            "key in PEM, without a passphrase"
        ) from None


def url_of(listener: socket.socket, *, scheme: str = "http") -> str:
    """The base URL at which a listening socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
