"""What ``presend serve`` adds to the provider it buys from, and how 500 callers at once fare.

The two are asked in turn, in one run, over kept-alive connections, for numbers nobody asked before; each is a
process of its own.
"""

from __future__ import annotations

import sys
import time

import httpx

from tests.acceptance.harness import Place
from tests.benchmarks import record
from tests.benchmarks.ground import Ground
from tests.front_door import ask_at_once
from worker.carrier.client import HttpCarrier
from worker.carrier.protocol import FeeType
from worker.sandbox.provider import DEFAULT_APIKEY
from worker.storage import accounts, engine
from worker.storage.engine import connect

SINGLES, BATCHES, WARM_UP, CALLERS = 120, 20, 5, 500


def run(ground: Ground) -> None:
    """One at a time, a thousand at a time, and many callers at once."""
    with ground.place_on_redis() as here:
        provider = _url(here, "sandbox")
        key = _account(here.database_url)
        front = _url(here, "serve", provider_url=provider)
        figures = _in_turn(ground, HttpCarrier(provider, DEFAULT_APIKEY), HttpCarrier(front, key))
        figures |= _at_once(provider, front, key)
        print(f"front door: {figures}", flush=True)
        ground.write(figures, here.database_url)


def _url(here: Place, command: str, **settings: str) -> str:
    process = here.run(command, [sys.executable, "-m", "worker.cli", command, "--port", "0"], **settings)
    process.wait_for("listens on http://")
    line = next(line for line in process.log.splitlines() if "listens on http://" in line)
    return next(word for word in line.split() if word.startswith("http://")).rstrip("/,.")


def _account(database_url: str) -> str:
    database = connect(database_url, connections=1)
    try:
        _, key = engine.transact(
            database,
            lambda to: accounts.create(to, "bench", fee_type=FeeType.POSTPAID, balance=0, by="bench"),
        )
    finally:
        database.dispose()
    return key


def _in_turn(ground: Ground, provider: HttpCarrier, front: HttpCarrier) -> dict[str, float]:
    figures: dict[str, float] = {}
    for what, rounds, numbers in (("single", SINGLES, 1), ("batch", BATCHES, 1000)):
        seconds: dict[str, list[float]] = {"provider": [], "front_door": []}
        for index in range(ground.sized(rounds) + WARM_UP):
            for name, carrier, prefix in (("provider", provider, "138"), ("front_door", front, "139")):
                first = index * 1000 + (500_000 if numbers == 1 else 0)
                asked = [f"{prefix}{first + each:08d}" for each in range(numbers)]
                started = time.perf_counter()
                if numbers == 1:
                    carrier.lookup(asked[0])
                else:
                    carrier.lookup_batch(asked)
                seconds[name].append(time.perf_counter() - started)
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            two = [record.quantile_ms(each[WARM_UP:], share) for each in seconds.values()]
            figures[f"{what}_provider_{label}_ms"], figures[f"{what}_front_door_{label}_ms"] = two
            figures[f"{what}_added_{label}_ms"] = round(two[1] - two[0], 1)
    provider.close()
    front.close()
    return figures


def _at_once(provider: str, front: str, key: str) -> dict[str, float]:
    """Callers at once: distinct numbers, then one number."""
    figures: dict[str, float] = {}
    for what, count, mobile in (("distinct", CALLERS, "1370000{:04d}"), ("same", 64, "13600000000")):
        before = _bill(provider)
        started = time.perf_counter()
        answers = ask_at_once(front, [{"apikey": key, "mobile": mobile.format(n)} for n in range(count)])
        figures[f"{what}_seconds"] = round(time.perf_counter() - started, 2)
        after = _bill(provider)
        figures[f"{what}_callers"] = len(answers)
        figures[f"{what}_without_answer"] = sum(answer["code"] == -8 for answer, _ in answers)
        figures[f"{what}_provider_calls"] = after[0] - before[0]
        figures[f"{what}_billed"] = after[1] - before[1]
    return figures


def _bill(provider: str) -> tuple[int, int]:
    bill = httpx.get(f"{provider}/sandbox/bill").json()
    return sum(bill["calls"].values()), bill["billed"]
