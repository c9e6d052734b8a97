"""A shop: ``python -m tests.benchmarks.shop BROKER_URL REDIS_URL PROVIDER_URL NUMBER``.

Until it is told to end it asks the provider for a number, then presend for another, and writes a line of
JSON: when it began, in POSIX seconds, and how many seconds each took. Each NUMBER asks for others.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import count, takewhile

from celery import Celery

from tests.acceptance.producer import producer
from worker.carrier.client import HttpCarrier
from worker.sandbox.provider import DEFAULT_APIKEY

_NUMBERS_EACH = 1_000_000


def asked_in_turn(app: Celery, carrier: HttpCarrier, places: Iterable[int]) -> Iterator[tuple[float, float]]:
    """Ask the provider and presend in turn; the seconds of each."""
    for place in places:
        began = time.perf_counter()
        carrier.lookup(f"138{place:08d}")
        between = time.perf_counter()
        order = {"order_id": f"o{place}", "mobile": f"137{place:08d}", "operator": "CMCC"}
        answer = app.send_task("recharge.precheck", kwargs=order).get(timeout=5)
        ended = time.perf_counter()
        assert answer["answered_from"] == "live", answer
        yield between - began, ended - between


def main(broker_url: str, redis_url: str, provider_url: str, number: str) -> None:
    """Ask until SIGTERM."""
    asked_to_end: list[int] = []
    signal.signal(signal.SIGTERM, lambda signal_number, _frame: asked_to_end.append(signal_number))
    app, carrier = producer(broker_url, redis_url), HttpCarrier(provider_url, DEFAULT_APIKEY)
    places = takewhile(lambda _place: not asked_to_end, count(int(number) * _NUMBERS_EACH))
    began = time.time()
    for provider, precheck in asked_in_turn(app, carrier, places):
        print(f"[{began:.6f},{provider:.6f},{precheck:.6f}]", flush=True)  # noqa: T201
        began = time.time()


if __name__ == "__main__":
    main(*sys.argv[1:])
