"""A shop: ``python -m tests.benchmarks.shop BROKER_URL REDIS_URL PROVIDER_URL NAME NUMBER``.

Until it is told to end it asks presend for one number after the other, each fifth time the provider itself.
It writes a line of JSON each time: whom it asked, when, in POSIX seconds, and how many seconds it waited.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from itertools import count

from celery import Celery

from tests.acceptance.producer import producer
from worker.carrier.client import HttpCarrier
from worker.sandbox.provider import DEFAULT_APIKEY

_NUMBERS_EACH, _PROVIDER_EACH = 1_000_000, 5


def ask_provider(carrier: HttpCarrier, mobile: str) -> float:
    """The seconds until the provider has answered a number."""
    began = time.perf_counter()
    carrier.lookup(mobile)
    return time.perf_counter() - began


def ask_presend(app: Celery, order_id: str, mobile: str) -> float:
    """The seconds until a precheck has its result; of a number that presend must ask for."""
    began = time.perf_counter()
    order = {"order_id": order_id, "mobile": mobile, "operator": "CMCC"}
    answer = app.send_task("recharge.precheck", kwargs=order).get(timeout=5)
    seconds = time.perf_counter() - began
    assert answer["answered_from"] == "live", answer
    return seconds


def main(broker_url: str, redis_url: str, provider_url: str, name: str, number: str) -> None:
    """Ask until SIGTERM."""
    asked_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda signal_number, _frame: asked_to_end.append(signal_number))
    app, carrier = producer(broker_url, redis_url), HttpCarrier(provider_url, DEFAULT_APIKEY)
    for place in count(int(number) * _NUMBERS_EACH):
        began = time.time()
        if place % _PROVIDER_EACH:
            who, seconds = "precheck", ask_presend(app, f"{name}{place}", f"137{place:08d}")
        else:
            who, seconds = "provider", ask_provider(carrier, f"138{place:08d}")
        print(json.dumps([who, began, seconds]), flush=True)  # noqa: T201
        if asked_to_end:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
