"""How much of a shopper's wait is presend's: prechecks beside the provider asked directly, in one run.

Idle, one at a time and in turn with the provider; then by several shops while a worker drains a backlog of
sms over the same broker, Postgres and provider. A precheck is measured where the shop waits, from its
``send_task`` to the return of ``.get()``, in another process than worker and provider; no number comes twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from tests.acceptance.harness import Place
from tests.acceptance.processes import Process
from tests.benchmarks import filling, record, shop
from tests.benchmarks.contestants import PRESEND, Contestant
from tests.benchmarks.course import Course, course
from tests.benchmarks.ground import Ground
from worker.carrier.client import HttpCarrier
from worker.sandbox.provider import DEFAULT_APIKEY

ROUNDS, WARM_UP = 120, 10
BACKLOG, SHOPS = 200_000, 2
_QUIET_SECONDS = 30
_LOOK_SECONDS, _NAP_SECONDS = 1.0, 0.02
_BUCKET_MS = 2
_SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def idle(ground: Ground) -> None:
    """Over each broker."""
    with ground.place_on_rabbitmq() as here:
        _idle(ground, here, "rabbitmq")
    with ground.place_on_redis() as here:
        _idle(ground, here, "redis")


def behind_backlog(ground: Ground) -> None:
    """Over RabbitMQ, at the documented latency, while 200,000 sms wait in their queue."""
    backlog = max(20_000, ground.sized(BACKLOG))
    figures: dict[str, Any] = {"backlog": backlog, "shops": SHOPS}
    with course(ground.folder) as here:
        for name, task_events in (("", "true"), (", no task events", "false")):
            settings = {"PRESEND_TASK_EVENTS": task_events}
            with ExitStack() as open_here:
                for when, found in _compared(
                    here, open_here, backlog, settings, ground.sized(_QUIET_SECONDS)
                ):
                    figures[when + name] = found
                    over = found["over_the_provider"]
                    print(f"prechecks {when}{name}: over the provider's median {over}", flush=True)
        ground.write(figures, here.broker_url, here.postgres_url)


def _compared(
    here: Course, open_here: ExitStack, backlog: int, settings: dict[str, str], quiet_seconds: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Shops on a quiet machine, then behind a backlog; what each came to."""
    shopping = Contestant("shopping", PRESEND, 0, lanes=("upkeep", "recharge"), latency=1.0, events="quorum")
    shopping = shopping.but("shopping", settings=settings)
    draining = Contestant("draining", PRESEND, backlog, lanes=("sms",), settings=settings)
    database_url = open_here.enter_context(here.database())
    here.clear(shopping)
    provider_url, running = here.start(open_here, shopping, database_url)
    for process in running:
        process.wait_for("upkeep_started" if process is running[0] else " ready.")
    urls = [here.broker_url, here.results_url, provider_url]
    quiet_until = time.monotonic() + quiet_seconds
    yield "quiet", _shopped(here, open_here, "quiet", urls, lambda: time.monotonic() < quiet_until)
    filling.fill(here.broker_url, backlog, many=False)
    _, sms = here.start(open_here, draining, database_url, provider_url=provider_url)
    sms[0].wait_for(" ready.")
    yield "behind a backlog", _shopped(here, open_here, "busy", urls, lambda: here.waiting() > 0)
    for process in (*running, *sms):
        assert process.stop(seconds=60) == 0, process.shown()


def _idle(ground: Ground, here: Place, broker: str) -> None:
    provider = here.run("sandbox", [sys.executable, "-m", "worker.cli", "sandbox", "--port", "0"])
    provider.wait_for("http://")
    url = next(word for word in provider.log.split() if word.startswith("http://")).rstrip("/,.")
    here.worker("recharge", provider_url=url)
    carrier = HttpCarrier(url, DEFAULT_APIKEY)
    rounds = ground.sized(ROUNDS)
    figures: dict[str, Any] = {"rounds": rounds}
    waits: dict[str, list[float]] = {"provider": [], "precheck": []}
    for turn in range(rounds + WARM_UP):
        waits["provider"].append(shop.ask_provider(carrier, f"1380000{turn:04d}"))
        waits["precheck"].append(shop.ask_presend(here.producer, f"o{turn}", f"1390000{turn:04d}"))
    carrier.close()
    for who, each in waits.items():
        for label in ("p50", "p99"):
            figures[f"{who}_{label}_ms"] = record.quantile_ms(each[WARM_UP:], _SHARES[label])
    figures["over_provider_p50_ms"] = round(figures["precheck_p50_ms"] - figures["provider_p50_ms"], 1)
    print(f"idle precheck over {broker}: {figures}", flush=True)
    ground.write(figures, here.broker_url, here.database_url, suffix=f"_{broker}")


def _shopped(
    here: Course, open_here: ExitStack, name: str, urls: Sequence[str], goes_on: Callable[[], bool]
) -> dict[str, Any]:
    """Let shops ask for as long as something goes on; beside it, how late a bare sleeper wakes."""
    places = range(SHOPS) if name == "quiet" else range(SHOPS, 2 * SHOPS)  # no number comes twice
    shops = [
        here.process(
            open_here,
            f"{name}-shop-{number}",
            [sys.executable, "-m", "tests.benchmarks.shop", *urls, name, str(number)],
        )
        for number in places
    ]
    for each in shops:
        each.wait_for("\n")
    began, late = time.time(), list[float]()
    while goes_on():
        look_again = time.monotonic() + _LOOK_SECONDS
        while (now := time.monotonic()) < look_again:
            time.sleep(_NAP_SECONDS)
            late.append(time.monotonic() - now - _NAP_SECONDS)
    ended = time.time()
    for each in shops:
        each.stop()
    waits = _waits(shops, began, ended)
    found: dict[str, Any] = {who: _figures(seconds) for who, seconds in waits.items()}
    found["over_the_provider"] = {
        label: round(found["precheck"][label] - found["provider"]["p50"], 1) for label in _SHARES
    }
    found["sleeper_late_by"] = {label: record.quantile_ms(late, share) for label, share in _SHARES.items()}
    return found


def _waits(shops: Sequence[Process], began: float, ended: float) -> dict[str, list[float]]:
    """What shops waited for between two moments."""
    waits: dict[str, list[float]] = {"provider": [], "precheck": []}
    for line in (line for each in shops for line in each.log.splitlines()):
        who, at, seconds = json.loads(line)
        if began <= at and at + seconds <= ended:
            waits[who].append(seconds)
    return waits


def _figures(waits: Sequence[float]) -> dict[str, Any]:
    buckets = Counter(int(wait * 1000 // _BUCKET_MS) * _BUCKET_MS for wait in waits)
    return {
        "count": len(waits),
        **{label: record.quantile_ms(waits, share) for label, share in _SHARES.items()},
        # by the lower bound of each two milliseconds
        "histogram": {str(lower): buckets[lower] for lower in sorted(buckets)},
    }
