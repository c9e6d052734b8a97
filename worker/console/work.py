"""Calls to the provider, batches and what they decided; events that wait, and what was decided lately."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from starlette.responses import Response

from worker.portability.requests import Lane
from worker.storage import reports
from worker.web.moments import read_moment, written_moment
from worker.web.visit import Refused, Visit

_PAGE = 50
_MOST_OF_A_BATCH = 1000
_LATELY = timedelta(minutes=10)
_LANES = {lane.value: lane for lane in Lane}


def calls_page(visit: Visit) -> Response:
    """Show the newest calls, of one lane or only those that failed, and the newest batches."""
    lane, failed = _LANES.get(visit.query("lane")), visit.query("failed") == "yes"
    before = read_moment(visit.query("before"))
    calls = visit.read(partial(reports.calls, most=_PAGE + 1, before=before, lane=lane, failed=failed))
    shown, more = calls[:_PAGE], len(calls) > _PAGE
    asked = {"lane": lane and lane.value, "failed": "yes" if failed else None}
    return visit.render(
        "calls.html",
        calls=shown,
        batches=visit.read(partial(reports.batches, most=15, lane=lane)) if before is None else [],
        lane=lane,
        failed=failed,
        lanes=list(Lane),
        latency=visit.read(reports.latency),
        older=visit.to("/calls", **asked, before=written_moment(shown[-1].sent_at)) if more else None,
        newest=visit.to("/calls", **asked),
        is_first=before is None,
    )


def batch_page(visit: Visit) -> Response:
    """Show one batch: its requests with their decisions, and the calls that bought for it."""
    batch_id = visit.request.path_params["id"]
    batch = visit.read(partial(reports.batch, batch_id=batch_id)) if reports.is_id(batch_id) else None
    if batch is None:
        raise Refused(404)
    requests = visit.read(partial(reports.of_batch, batch_id=batch.id, most=_MOST_OF_A_BATCH))
    ids = sorted({request.call_id for request in requests if request.call_id is not None})
    return visit.render(
        "batch.html",
        batch=batch,
        requests=requests,
        calls=visit.read(partial(reports.calls_by_id, ids=ids)),
        most=_MOST_OF_A_BATCH,
    )


def events_page(visit: Visit) -> Response:
    """Show what was decided lately by kind, the newest decisions, and the batches whose events wait."""
    decided, unsent = visit.read(partial(reports.decisions, past=_LATELY)), visit.read(reports.unsent)
    return visit.render(
        "events.html",
        decided=decided,
        total=sum(one.requests for one in decided),
        bound=reports.MOST_COUNTED,
        unsent=unsent,
        waiting=visit.read(partial(reports.unsent_batches, most=20)) if unsent.batches else [],
        requests=visit.read(partial(reports.requests, most=40)),
    )
