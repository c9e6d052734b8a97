"""What one may ask of running workers: ``celery -A worker.app inspect lanes``, ``… control pause_lane``.

Every worker gets a command; the first one does it for all, the others find it done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.control import control_command, inspect_command

from worker.errors import StorageUnavailable
from worker.portability.requests import Lane
from worker.storage import operator_actions

_SOMEBODY, _NO_REASON = "celery control", "none given"
"""Who and why where the command says neither: it is better obeyed than refused while something burns."""


@inspect_command()
def lanes(worker_state: Any) -> dict[str, Any]:
    """Show each lane: why it is stopped, if it is; requests waiting, slots busy."""
    shown: dict[str, Any] = worker_state.consumer.shown_lanes()
    return shown


@control_command(args=[("lane", str), ("by", str), ("reason", str)], signature="<lane> [your name] [reason]")
def pause_lane(
    worker_state: Any, lane: str = "", by: str = _SOMEBODY, reason: str = _NO_REASON
) -> dict[str, str]:
    """Let a lane take no more messages, in every worker, until resume_lane."""
    consumer = worker_state.consumer

    def pause(which: Lane, who: str, why: str) -> str:
        standing = consumer.lane_control.pause(which, by=who, reason=why)
        if (standing.paused_by, standing.reason) == (who, why):
            return f"lane {which} is paused"
        since = f"since {standing.paused_at.isoformat(timespec='seconds')}"
        return f"lane {which} was paused already, by {standing.paused_by} {since}: {standing.reason}"

    return _answer(
        consumer, pause, lane, by, reason, example="pause_lane sms mei 'the gateway sends rubbish'"
    )


@control_command(args=[("lane", str), ("by", str), ("reason", str)], signature="<lane> [your name] [reason]")
def resume_lane(
    worker_state: Any, lane: str = "", by: str = _SOMEBODY, reason: str = _NO_REASON
) -> dict[str, str]:
    """Let a paused lane take messages again."""
    consumer = worker_state.consumer

    def resume(which: Lane, who: str, why: str) -> str:
        resumed = consumer.lane_control.resume(which, by=who, reason=why)
        return f"lane {which} resumed" if resumed else f"lane {which} is not paused"

    return _answer(consumer, resume, lane, by, reason, example="resume_lane sms mei")


def _answer(
    consumer: Any, do: Callable[[Lane, str, str], str], lane: str, by: str, reason: str, *, example: str
) -> dict[str, str]:
    known = [one.value for one in (Lane.RECHARGE, Lane.SMS)]
    if lane not in known:
        return {"error": f"unknown lane {lane[:40]!r}: name one of {', '.join(known)}"}
    try:
        done = do(Lane(lane), operator_actions.person(by), operator_actions.reason(reason))
    except ValueError as exc:
        return {"error": f"{exc}, as in: celery -A worker.app control {example}"}
    except StorageUnavailable as exc:
        return {"error": f"nothing changed, for Postgres does not answer ({exc}): try again"}
    consumer.lane_switch.watch.look_soon()
    return {"ok": done}
