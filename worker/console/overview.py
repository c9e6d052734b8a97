"""The first page: lanes, gate, spend and rates as of now. Most of it is asked for again every two seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from worker.web.visit import Visit

if TYPE_CHECKING:
    from worker.console.console import Console


def page(its: Console, visit: Visit) -> Response:
    """Show the page with what is so now."""
    return visit.render("overview.html", **_now(its))


def now(its: Console, visit: Visit) -> Response:
    """Return the part of the page that changes."""
    return visit.render("now.html", **_now(its))


def rates(its: Console, _visit: Visit) -> Response:
    """Return the chart's figures: a list of times, and one a line."""
    return JSONResponse(its.live.chart())


def _now(its: Console) -> dict[str, Any]:
    look, spend = its.live.look(), its.spending.now()
    return {"look": look, "spend": spend, "days_left": spend.days_left(look.sight.balance)}
