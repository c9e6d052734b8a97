"""``presend console``: one event loop, until a signal."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from worker import logs
from worker.bootstrap import Observing
from worker.carrier.listening import GuidedServer, check_certificate, listen, url_of
from worker.console import console as building

log = logs.get(__name__)

DEFAULT_PORT = 8600
_GRACEFUL_SECONDS = 5.0


def run(
    observing: Observing,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    certificate: tuple[Path, Path] | None = None,
    public_urls: Sequence[str] = (),
    behind_proxy: bool = False,
    on_ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve until SIGINT or SIGTERM; ``certificate`` (chain and key, PEM) makes it https.

    ``SettingsError`` where the port is taken or the certificate unusable.
    """
    if certificate is not None:
        check_certificate(*certificate)
    its = building.console(observing)
    site = building.site(its, public_urls=public_urls, host=host, behind_proxy=behind_proxy)
    certfile, keyfile = certificate or (None, None)
    server = GuidedServer(
        building.app(its, site), graceful_seconds=_GRACEFUL_SECONDS, certfile=certfile, keyfile=keyfile
    )
    listener = listen(host, port)
    its.watch.start()
    try:
        url = url_of(listener, scheme="http" if certificate is None else "https")
        log.info("console_opened", url=url)
        on_ready(url)
        asyncio.run(_serve(server, listener))
    finally:
        its.watch.close()
        listener.close()
        log.info("console_closed")


async def _serve(server: GuidedServer, listener: socket.socket) -> None:
    def end() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    await server.serve(sockets=[listener])
