"""The gate and the lanes: closed and opened, paused and resumed, each with a reason for the history."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Connection
from starlette.responses import Response

from worker.portability.requests import Lane
from worker.storage import gate, lane_pauses, operator_actions
from worker.storage.gate import ClosedGate
from worker.web.visit import Refused, Visit

if TYPE_CHECKING:
    from worker.console.console import Console

_QUEUE_LANES = {Lane.RECHARGE.value: Lane.RECHARGE, Lane.SMS.value: Lane.SMS}
LONGEST_REASON = 500


def gate_page(_its: Console, visit: Visit) -> Response:
    """Show what is closed, since when, by whom and why, and the form that changes it."""
    return visit.render("gate.html", gates=visit.read(gate.closed), unsaid=False)


def close_gate(its: Console, visit: Visit) -> Response:
    """Close the gate for every account."""
    why = _reason(visit)
    if why is None:
        return visit.render("gate.html", status=422, gates=visit.read(gate.closed), unsaid=True)
    visit.transact(partial(gate.close, account=gate.EVERY_ACCOUNT, by=visit.principal.name, reason=why))
    its.live.forget()
    return visit.redirect("/gate", notice="notice.gate_closed")


def open_gate(its: Console, visit: Visit) -> Response:
    """Open what was closed by hand; what the provider's account closed too, if that is asked for."""
    why = _reason(visit)
    if why is None:
        return visit.render("gate.html", status=422, gates=visit.read(gate.closed), unsaid=True)
    also_provider = visit.form("provider") == "yes"

    def reopen(connection: Connection) -> list[ClosedGate]:
        opening = [one for one in gate.closed(connection) if one.by_hand or also_provider]
        for one in opening:
            gate.reopen(connection, one.account, by=visit.principal.name, reason=why)
        return opening

    opened = visit.transact(reopen)
    its.live.forget()
    return visit.redirect("/gate", notice="notice.gate_opened" if opened else "notice.nothing_changed")


def lane_page(_its: Console, visit: Visit) -> Response:
    """Show whether a lane is paused, and the form that changes it."""
    return _lane_page(visit, _lane(visit))


def pause_lane(its: Console, visit: Visit) -> Response:
    """Let a lane take no more messages, in every worker."""
    lane, why = _lane(visit), _reason(visit)
    if why is None:
        return _lane_page(visit, lane, unsaid=True)
    visit.transact(partial(lane_pauses.pause, lane=lane, by=visit.principal.name, reason=why))
    its.live.forget()
    return visit.redirect(f"/lanes/{lane}", notice="notice.lane_paused", lane=visit.say(f"lane.{lane}"))


def resume_lane(its: Console, visit: Visit) -> Response:
    """Let a lane go on."""
    lane, why = _lane(visit), _reason(visit)
    if why is None:
        return _lane_page(visit, lane, unsaid=True)
    done = visit.transact(partial(lane_pauses.resume, lane=lane, by=visit.principal.name, reason=why))
    its.live.forget()
    notice = "notice.lane_resumed" if done else "notice.nothing_changed"
    return visit.redirect(f"/lanes/{lane}", notice=notice, lane=visit.say(f"lane.{lane}"))


def _lane_page(visit: Visit, lane: Lane, *, unsaid: bool = False) -> Response:
    paused = next((one for one in visit.read(lane_pauses.read) if one.lane is lane), None)
    return visit.render("lane.html", status=422 if unsaid else 200, lane=lane, paused=paused, unsaid=unsaid)


def _lane(visit: Visit) -> Lane:
    lane = _QUEUE_LANES.get(visit.request.path_params["lane"])
    if lane is None:
        raise Refused(404)
    return lane


def _reason(visit: Visit) -> str | None:
    """The reason that was written, numbers masked; None where there is none."""
    try:
        return operator_actions.reason(" ".join(visit.form("reason").split())[:LONGEST_REASON])
    except ValueError:
        return None
