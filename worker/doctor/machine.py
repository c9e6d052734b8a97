"""This machine: the time zone's data, and the metrics port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from worker.doctor.finding import Finding, ok

if TYPE_CHECKING:
    from worker.config import Settings


_ANY = {"", "0.0.0.0", "::"}  # noqa: S104 - not listened on here


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at what needs no service."""
    midnight = datetime.now(UTC).astimezone(ZoneInfo(settings.timezone))
    yield ok("time zone", f"{settings.timezone}, where it is {midnight:%H:%M}")
    port = settings.metrics_port
    if port:
        yield _metrics(settings.metrics_host, port)


def _metrics(host: str, port: int) -> Finding:
    """A taken port is no fault: a process takes the next one that is free."""
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex((host if host not in _ANY else "127.0.0.1", port)) == 0
    if taken:
        return ok(
            "metrics port",
            f"{port} is in use, by a process of presend or another: the next one takes a port behind it",
        )
    return ok("metrics port", f"{port} is free")
