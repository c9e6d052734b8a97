"""``recharge.precheck``: before a recharge, is the number with the operator whose product is sold."""

from __future__ import annotations

from typing import Any

from tasks.here import decide_here
from worker import bootstrap
from worker.app import app
from worker.consumer import CheckTask
from worker.portability.requests import Lane


@app.task(
    name="recharge.precheck", base=CheckTask, lane=Lane.RECHARGE, parts=staticmethod(bootstrap.consumer_parts)
)
def precheck(**arguments: Any) -> dict[str, Any]:
    """Check a number before a recharge: order_id, mobile, operator (optional), attempt=1, source=''.

    Returns the event's ``data``. Safe to run twice: the same order_id and attempt give the same answer.
    """
    return decide_here(Lane.RECHARGE, arguments)


@app.task(
    name="recharge.precheck_many",
    base=CheckTask,
    lane=Lane.RECHARGE,
    many=True,
    parts=staticmethod(bootstrap.consumer_parts),
)
def precheck_many(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Check at most 1000 numbers before recharges; a list of ``data`` in item order."""
    return [decide_here(Lane.RECHARGE, item) for item in items]
