"""``sms.recheck``: an SMS failed: was the number ported, and where must the message go now."""

from __future__ import annotations

from typing import Any

from tasks.here import decide_here
from worker import bootstrap
from worker.app import app
from worker.consumer import CheckTask
from worker.portability.requests import Lane


@app.task(name="sms.recheck", base=CheckTask, lane=Lane.SMS, parts=staticmethod(bootstrap.consumer_parts))
def recheck(**arguments: Any) -> dict[str, Any]:
    """Check a number after an SMS failed.

    Takes message_id, mobile, operator (the channel that failed), failure_code and failed_at (optional),
    attempt=1, source=''. Returns the event's ``data``. Safe to run twice: the same message_id and attempt
    give the same answer.
    """
    return decide_here(Lane.SMS, arguments)


@app.task(
    name="sms.recheck_many",
    base=CheckTask,
    lane=Lane.SMS,
    many=True,
    parts=staticmethod(bootstrap.consumer_parts),
)
def recheck_many(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check at most 1000 failed messages; a list of ``data`` in item order."""
    return [decide_here(Lane.SMS, item) for item in items]
