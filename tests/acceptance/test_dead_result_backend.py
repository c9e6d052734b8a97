"""The result backend is gone: decisions and events come all the same, and no later."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually


@pytest.fixture(params=["closed", "silent"])
def dead_redis(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a port where nobody listens, or where nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if request.param == "closed":
            listener.close()
        yield f"redis://127.0.0.1:{port}/0"


def test_decisions_come_promptly(here: Place, dead_redis: str) -> None:
    here.settings |= {"redis_url": dead_redis, "recharge_slots": "1"}
    number, *others = plain_numbers(101)
    worker = here.worker("recharge", "sms")
    worker.wait_for("result_backend_not_reached")
    started = time.monotonic()
    for order in ("A", "B", "C"):  # the one slot is free again at once
        here.send("recharge.precheck", order_id=order, mobile=number, operator="CMCC")
        eventually(lambda order=order: order in here.events.subjects(), f"the event of {order}", seconds=5)
    assert time.monotonic() - started < 3
    here.send_many("sms", others)
    here.send("sms.recheck_many", items=[{"message_id": "M", "mobile": number, "operator": "CUCC"}])
    here.check_settled(104, seconds=10)
    here.stop()
