"""A task called as a function: the same rules, storage and events, for one request in this process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from worker import bootstrap
from worker.errors import Rejected
from worker.portability.events import check_data
from worker.portability.requests import Lane


def decide_here(lane: Lane, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Decide one request now; ``Rejected`` where its arguments cannot be taken (nothing is parked)."""
    presend = bootstrap.this_process()
    taken = bootstrap.intakes(presend.settings)[lane].take_one(arguments, now=datetime.now(UTC))
    if taken.request is None:
        raise Rejected(taken.reason or "the arguments cannot be taken")
    return check_data(presend.pipeline.run_one(taken.request))
