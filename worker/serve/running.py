"""``presend serve``: one event loop, http and https at once, until a signal."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from worker import logs
from worker.bootstrap import Presend
from worker.carrier.listening import GuidedServer, check_certificate, listen, url_of
from worker.carrier.server import carrier_app
from worker.portability.requests import Lane
from worker.serve.desk import Desk
from worker.serve.direct_lane import DirectLane
from worker.serve.front_door import FrontDoor
from worker.serve.jobs.runner import JobRunner
from worker.serve.page.site import Access, query_page
from worker.upkeep import Upkeep

log = logs.get(__name__)

DEFAULT_PORT = 8500


@dataclass(frozen=True, slots=True)
class Tls:
    """Where https is served, and as whom: PEM files."""

    port: int
    certfile: Path
    keyfile: Path

    def check(self) -> None:
        """Raise ``SettingsError`` where the two files do not make a server."""
        check_certificate(self.certfile, self.keyfile)


def run(
    presend: Presend,
    upkeep: Upkeep,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    tls: Tls | None = None,
    access: Access | None = None,
    on_ready: Callable[[list[str]], None] = lambda _urls: None,
    stop: Event | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, or until ``stop`` is set where one is given; answers calls in progress.

    ``on_ready`` is told the base URLs. ``SettingsError`` where a port is taken or a certificate unusable.
    """
    if tls is not None:
        tls.check()
    its: Any = {"access": access or Access(host), "on_ready": on_ready, "stop": stop}
    with _listening(host, port) as plain:
        if tls is None:
            asyncio.run(_serve(presend, upkeep, [(plain, None)], **its))
            return
        with _listening(host, tls.port, option="--tls-port") as secure:
            listeners = [(plain, None), (secure, tls)]
            asyncio.run(_serve(presend, upkeep, listeners, **its))


async def _serve(
    presend: Presend,
    upkeep: Upkeep,
    listeners: list[tuple[socket.socket, Tls | None]],
    *,
    access: Access,
    on_ready: Callable[[list[str]], None],
    stop: Event | None,
) -> None:
    settings = presend.settings
    deadline = settings.direct_deadline_seconds
    presend.store.announce([Lane.DIRECT])
    desk = Desk(presend.database, deadline_seconds=deadline)
    lane = DirectLane(
        presend.pipeline,
        presend.store.suspicions,
        slots=settings.slots(Lane.DIRECT),
        linger_seconds=settings.linger_seconds(Lane.DIRECT),
    )
    door = FrontDoor(
        desk, lane, deadline_seconds=deadline, max_age_seconds=settings.max_age_seconds[Lane.DIRECT]
    )
    runner = JobRunner(
        presend.pipeline,
        presend.store,
        presend.database,
        slots=settings.job_slots,
        max_age_seconds=settings.max_age_seconds[Lane.DIRECT] or None,
    )
    runner.start()
    page = query_page(presend.database, door, runner, timezone=settings.timezone, access=access)
    app = carrier_app(door, extra_routes=[Route("/healthz", _health)], otherwise=page)
    ended = Event()
    chores = Thread(target=upkeep.for_direct_callers, args=(ended,), name="chores", daemon=True)
    chores.start()
    try:
        await _answer(app, listeners, on_ready, stop, graceful_seconds=deadline + 1)
    finally:
        ended.set()
        await asyncio.to_thread(chores.join, deadline)
        await asyncio.to_thread(runner.close, timeout_seconds=deadline)
        await asyncio.to_thread(lane.close, timeout_seconds=deadline)
        await desk.close()
        log.info("front_door_closed")


async def _answer(
    app: Starlette,
    listeners: list[tuple[socket.socket, Tls | None]],
    on_ready: Callable[[list[str]], None],
    stop: Event | None,
    *,
    graceful_seconds: float,
) -> None:
    servers = [
        GuidedServer(
            app,
            graceful_seconds=graceful_seconds,
            certfile=None if tls is None else tls.certfile,
            keyfile=None if tls is None else tls.keyfile,
        )
        for _, tls in listeners
    ]

    def end() -> None:
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    if stop is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
    else:
        watch = asyncio.create_task(_when_set(stop, end))
        watch.add_done_callback(lambda _: None)
    urls = [url_of(listener, scheme="https" if tls else "http") for listener, tls in listeners]
    log.info("front_door_opened", urls=urls)
    on_ready(urls)
    await asyncio.gather(
        *(server.serve(sockets=[listener]) for server, (listener, _) in zip(servers, listeners, strict=True))
    )


async def _when_set(stop: Event, end: Callable[[], None]) -> None:
    await asyncio.to_thread(stop.wait)
    end()


async def _health(_request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


@contextmanager
def _listening(host: str, port: int, *, option: str = "--port") -> Iterator[socket.socket]:
    listener = listen(host, port, option=option)
    try:
        yield listener
    finally:
        listener.close()
