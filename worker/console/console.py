"""The console's site: its parts, its routes, and who may ask for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from worker.bootstrap import Observing
from worker.console import dead, entering, explaining, overview, stops, trail, work
from worker.console.live import Live
from worker.console.spending import Spending
from worker.console.watch import Watch
from worker.storage import operators
from worker.web.site import MenuItem, Site
from worker.web.visit import Visit

MENU = [
    MenuItem("/", "menu.overview"),
    MenuItem("/calls", "menu.work"),
    MenuItem("/events", "menu.events"),
    MenuItem("/dead", "menu.dead"),
    MenuItem("/explain", "menu.explain"),
    MenuItem("/trail", "menu.trail"),
]


@dataclass(frozen=True)
class Console:
    """What the pages work with."""

    observing: Observing
    watch: Watch
    live: Live
    spending: Spending


def console(observing: Observing) -> Console:
    """Build the parts; the watch is not started yet."""
    watch = Watch(observing.broker_url, observing.carrier)
    live = Live(
        observing.database, watch, daily=observing.budget, slots=observing.slots, account=observing.account
    )
    return Console(observing, watch, live, Spending(observing.database, observing.budget))


def site(
    its: Console,
    *,
    public_urls: Sequence[str] = (),
    host: str = "127.0.0.1",
    behind_proxy: bool = False,
    **options: Any,
) -> Site:
    """Return the console's site; ``options`` are those of :class:`~worker.web.site.Site`."""
    return Site(
        kind=operators.SITE,
        folder=Path(__file__).parent,
        database=its.observing.database,
        principal=operators.find,
        timezone=its.observing.budget.timezone,
        menu=MENU,
        public_urls=public_urls,
        host=host,
        behind_proxy=behind_proxy,
        **options,
    )


def app(its: Console, site: Site) -> ASGIApp:
    """Return the application. What changes something, and what shows a number, is for the role ``act``."""
    page, action = site.page, site.action

    def acting(path: str, endpoint: Callable[[Visit], Response]) -> Route:
        return action(path, endpoint, allow=lambda operator: operator.may_act)

    return site.app(
        [
            Route("/healthz", _health),
            page("/log-in", entering.page, public=True),
            action("/log-in", entering.log_in, public=True),
            action("/log-out", entering.log_out),
            page("/", partial(overview.page, its)),
            page("/now", partial(overview.now, its), polled=True),
            page("/rates.json", partial(overview.rates, its), polled=True),
            page("/gate", partial(stops.gate_page, its)),
            acting("/gate/close", partial(stops.close_gate, its)),
            acting("/gate/open", partial(stops.open_gate, its)),
            page("/lanes/{lane}", partial(stops.lane_page, its)),
            acting("/lanes/{lane}/pause", partial(stops.pause_lane, its)),
            acting("/lanes/{lane}/resume", partial(stops.resume_lane, its)),
            page("/calls", work.calls_page),
            page("/batches/{id}", work.batch_page),
            page("/events", work.events_page),
            page("/dead", dead.page),
            acting("/dead/price", partial(dead.price, its)),
            acting("/dead/replay", partial(dead.send_again, its)),
            page("/dead/{id}", dead.letter_page),
            acting("/dead/{id}", dead.show_whole),
            page("/explain", explaining.page),
            action("/explain", partial(explaining.tell, its)),
            page("/trail", trail.page),
        ],
        for_any_host=["/healthz"],
    )


async def _health(_request: Request) -> Response:
    return PlainTextResponse("ok\n")
