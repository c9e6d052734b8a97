"""What one may ask of running workers: ``celery -A worker.app inspect lanes``, ``… control pause_lane``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.control import control_command, inspect_command

from worker.errors import StorageUnavailable
from worker.portability.msisdn import mask_all
from worker.portability.requests import Lane

_BY = "celery control"
_NO_REASON = "none given"


@inspect_command()
def lanes(worker_state: Any) -> dict[str, Any]:
    """Show each lane: why it is stopped, if it is; requests waiting, slots busy."""
    shown: dict[str, Any] = worker_state.consumer.shown_lanes()
    return shown


@control_command(args=[("lane", str), ("reason", str), ("by", str)], signature="<lane> [reason [by]]")
def pause_lane(worker_state: Any, lane: str = "", reason: str = _NO_REASON, by: str = _BY) -> dict[str, str]:
    """Let a lane take no more messages, in every worker, until resume_lane."""
    control = worker_state.consumer.lane_control
    return _answer(
        worker_state.consumer,
        lane,
        lambda which: control.pause(which, by=by, reason=mask_all(reason)),
        done="paused",
        already="was paused already",
    )


@control_command(args=[("lane", str), ("reason", str), ("by", str)], signature="<lane> [reason [by]]")
def resume_lane(worker_state: Any, lane: str = "", reason: str = _NO_REASON, by: str = _BY) -> dict[str, str]:
    """Let a paused lane take messages again."""
    control = worker_state.consumer.lane_control
    return _answer(
        worker_state.consumer,
        lane,
        lambda which: control.resume(which, by=by, reason=mask_all(reason)),
        done="resumed",
        already="is not paused",
    )


def _answer(
    consumer: Any, name: str, do: Callable[[Lane], bool], *, done: str, already: str
) -> dict[str, str]:
    """Every worker gets the command; the first one does it for all, the others find it done."""
    known = [lane.value for lane in (Lane.RECHARGE, Lane.SMS)]
    if name not in known:
        return {"error": f"unknown lane {name[:40]!r}: name one of {', '.join(known)}"}
    try:
        newly = do(Lane(name))
    except StorageUnavailable as exc:
        return {"error": f"lane {name} not {done}, for Postgres does not answer ({exc}): try again"}
    consumer.lane_switch.watch.look_soon()
    return {"ok": f"lane {name} {done}" if newly else f"lane {name} {already}"}
