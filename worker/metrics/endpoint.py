"""``/metrics`` of this process, on a thread of its own that ends with it."""

from __future__ import annotations

import errno
import platform
import threading
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from socket import AF_INET6
from socketserver import TCPServer, ThreadingMixIn
from urllib.parse import urlsplit

from prometheus_client import Gauge, MetricsHandler, ProcessCollector

from worker import logs
from worker.metrics.registry import REGISTRY

log = logs.get(__name__)

_PORTS_TRIED = 100
_SECONDS = 10.0
"""A scraper that says nothing for so long is let go."""

_build = Gauge(
    "presend_build_info",
    "1, with the release, Python, and what the process is: its lanes, upkeep, serve or console",
    ["version", "python", "role"],
    registry=REGISTRY,
)
ProcessCollector(registry=REGISTRY)


class Endpoint:
    """Where this process is scraped."""

    def __init__(self, server: TCPServer) -> None:
        self._server = server
        self.port: int = server.server_address[1]
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        ).start()

    def close(self) -> None:
        """Answer no more; nobody has to call this before the process ends."""
        self._server.shutdown()
        self._server.server_close()


def open_endpoint(host: str, port: int, *, role: str) -> Endpoint | None:
    """Serve ``/metrics`` on the first free one of consecutive ports; None where ``port`` is 0.

    None, too, where that cannot be: the log says why, and the process works without it.
    """
    _build.labels(_version(), platform.python_version(), role).set(1)
    for candidate in range(port, min(port + _PORTS_TRIED, 65536)) if port else ():
        try:
            server = _server(host, candidate)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                log.info("metrics_port_taken", port=candidate)
                continue
            _say_not_served(
                f"{host}:{candidate}: {exc.strerror or type(exc).__name__}",
                "set PRESEND_METRICS_HOST to an address of this machine, and PRESEND_METRICS_PORT to a port "
                "this user may open, or to 0 for none",
            )
            return None
        endpoint = Endpoint(server)
        log.info("metrics_served", host=host, port=endpoint.port, role=role)
        return endpoint
    if port:
        _say_not_served(
            f"{_PORTS_TRIED} ports from {port} on are taken", "set PRESEND_METRICS_PORT to one that is free"
        )
    return None


def _say_not_served(why: str, next_step: str) -> None:
    log.error("metrics_not_served", error=why, next_step=next_step)


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True


class _Server6(_Server):
    address_family = AF_INET6


def _server(host: str, port: int) -> TCPServer:
    return (_Server6 if ":" in host else _Server)((host, port), _Handler)


class _Handler(MetricsHandler):
    registry = REGISTRY
    timeout = _SECONDS

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        """Answer ``/metrics``, and nothing else."""
        if urlsplit(self.path).path in {"/metrics", "/metrics/"}:
            super().do_GET()
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "look at /metrics")

    def version_string(self) -> str:
        """Keep Python's version to the metrics."""
        return "presend"


def _version() -> str:
    try:
        return version("presend")
    except PackageNotFoundError:
        return "unknown"
