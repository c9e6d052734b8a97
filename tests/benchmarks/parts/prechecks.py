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
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from tests.acceptance.harness import Place
from tests.acceptance.processes import Process
from tests.acceptance.waiting import eventually
from tests.benchmarks import filling, record
from tests.benchmarks.contestants import PRESEND, Contestant
from tests.benchmarks.course import Course, course
from tests.benchmarks.ground import Ground
from tests.benchmarks.shop import asked_in_turn
from worker.carrier.client import HttpCarrier
from worker.sandbox.provider import DEFAULT_APIKEY

ROUNDS, WARM_UP = 120, 10
BACKLOG, SHOPS = 200_000, 4
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
    shopping = Contestant("shopping", PRESEND, 0, lanes=("upkeep", "recharge"), latency=1.0, events="quorum")
    draining = Contestant("draining", PRESEND, backlog, lanes=("sms",))
    with course(ground.folder) as here, ExitStack() as open_here:
        database_url = open_here.enter_context(here.database())
        here.clear(shopping)
        provider_url, running = here.start(open_here, shopping, database_url)
        for process in running:
            process.wait_for("upkeep_started" if process is running[0] else " ready.")
        quiet = _shopped(here, open_here, provider_url, "quiet", seconds=ground.sized(ROUNDS) / 4)
        filling.fill(here.broker_url, backlog, many=False)
        _, sms = here.start(open_here, draining, database_url, provider_url=provider_url)
        sms[0].wait_for(" ready.")
        busy = _shopped(here, open_here, provider_url, "busy", backlog=True)
        for process in (*running, *sms):
            assert process.stop(seconds=60) == 0, process.shown()
        figures: dict[str, Any] = {"backlog": backlog, "shops": SHOPS}
        for name, found in (("quiet", quiet), ("behind backlog", busy)):
            figures[name] = {who: _figures(waits) for who, waits in found.items()}
            over = {
                label: round(figures[name]["precheck"][label] - figures[name]["provider"]["p50"], 1)
                for label in _SHARES
            }
            figures[name]["over_the_provider"] = over
            print(f"prechecks, {name}: {len(found['precheck'])}, over the provider's p50: {over}", flush=True)
        ground.write(figures, here.broker_url, here.postgres_url)


def _idle(ground: Ground, here: Place, broker: str) -> None:
    provider = here.run("sandbox", [sys.executable, "-m", "worker.cli", "sandbox", "--port", "0"])
    provider.wait_for("http://")
    url = next(word for word in provider.log.split() if word.startswith("http://")).rstrip("/,.")
    here.worker("recharge", provider_url=url)
    carrier = HttpCarrier(url, DEFAULT_APIKEY)
    rounds = ground.sized(ROUNDS)
    turns = list(asked_in_turn(here.producer, carrier, range(rounds + WARM_UP)))[WARM_UP:]
    carrier.close()
    figures: dict[str, Any] = {"rounds": rounds}
    for index, who in enumerate(("provider", "precheck")):
        for label in ("p50", "p99"):
            waits = [turn[index] for turn in turns]
            figures[f"{who}_{label}_ms"] = record.quantile_ms(waits, _SHARES[label])
    figures["over_provider_p50_ms"] = round(figures["precheck_p50_ms"] - figures["provider_p50_ms"], 1)
    print(f"idle precheck over {broker}: {figures}", flush=True)
    ground.write(figures, here.broker_url, here.database_url, suffix=f"_{broker}")


def _shopped(
    here: Course,
    open_here: ExitStack,
    provider_url: str,
    name: str,
    *,
    seconds: float = 0.0,
    backlog: bool = False,
) -> dict[str, list[float]]:
    """Let shops ask, for so long or while sms wait; the waits of each kind, in seconds."""
    command = [sys.executable, "-m", "tests.benchmarks.shop"]
    urls = [here.broker_url, here.results_url, provider_url]
    shops = [
        here.process(open_here, f"{name}-shop-{number}", [*command, *urls, f"{number + SHOPS * backlog}"])
        for number in range(SHOPS)
    ]
    for shop in shops:
        shop.wait_for("\n")
    began = time.time()
    if backlog:
        eventually(lambda: not here.waiting(), "an empty queue", seconds=600)
    else:
        time.sleep(seconds)
    ended = time.time()
    for shop in shops:
        shop.stop()
    return _waits(shops, began, ended)


def _waits(shops: Sequence[Process], began: float, ended: float) -> dict[str, list[float]]:
    """What shops waited for between two moments."""
    waits: dict[str, list[float]] = {"provider": [], "precheck": []}
    for line in (line for shop in shops for line in shop.log.splitlines()):
        at, provider, precheck = json.loads(line)
        if began <= at and at + provider + precheck <= ended:
            waits["provider"].append(provider)
            waits["precheck"].append(precheck)
    return waits


def _figures(waits: Sequence[float]) -> dict[str, Any]:
    buckets = Counter(int(wait * 1000 // _BUCKET_MS) * _BUCKET_MS for wait in waits)
    return {
        "count": len(waits),
        **{label: record.quantile_ms(waits, share) for label, share in _SHARES.items()},
        # by the lower bound of each two milliseconds
        "histogram": {str(lower): buckets[lower] for lower in sorted(buckets)},
    }
