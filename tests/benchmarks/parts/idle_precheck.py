"""How much of a shopper's wait is presend's: one precheck at a time, beside the provider asked directly.

The two are asked in turn, in one run, each for a number nobody asked before. The precheck is measured where
the shop waits: from ``send_task`` to the return of ``.get()``, in another process than worker and provider.
"""

from __future__ import annotations

import sys
import time

from tests.acceptance.harness import Place
from tests.benchmarks import record
from tests.benchmarks.ground import Ground
from worker.carrier.client import HttpCarrier
from worker.sandbox.provider import DEFAULT_APIKEY

ROUNDS, WARM_UP = 120, 10


def run(ground: Ground) -> None:
    """Over each broker."""
    with ground.place_on_rabbitmq() as here:
        measure(ground, here, "rabbitmq")
    with ground.place_on_redis() as here:
        measure(ground, here, "redis")


def measure(ground: Ground, here: Place, broker: str) -> None:
    """Ask the two in turn."""
    provider = here.run("sandbox", [sys.executable, "-m", "worker.cli", "sandbox", "--port", "0"])
    provider.wait_for("http://")
    url = next(word for word in provider.log.split() if word.startswith("http://")).rstrip("/,.")
    here.worker("recharge", provider_url=url)
    carrier = HttpCarrier(url, DEFAULT_APIKEY)
    direct, precheck = [], []
    for index in range(ground.sized(ROUNDS) + WARM_UP):
        started = time.perf_counter()
        carrier.lookup(f"1380000{index:04d}")
        direct.append(time.perf_counter() - started)
        started = time.perf_counter()
        asked = here.send(
            "recharge.precheck", order_id=f"o{index}", mobile=f"1390000{index:04d}", operator="CMCC"
        )
        answer = asked.get(timeout=5)
        precheck.append(time.perf_counter() - started)
        assert answer["answered_from"] == "live"
    carrier.close()
    figures = {
        "rounds": ground.sized(ROUNDS),
        "provider_p50_ms": record.quantile_ms(direct[WARM_UP:], 0.5),
        "provider_p99_ms": record.quantile_ms(direct[WARM_UP:], 0.99),
        "precheck_p50_ms": record.quantile_ms(precheck[WARM_UP:], 0.5),
        "precheck_p99_ms": record.quantile_ms(precheck[WARM_UP:], 0.99),
    }
    figures["over_provider_p50_ms"] = round(figures["precheck_p50_ms"] - figures["provider_p50_ms"], 1)
    print(f"idle precheck over {broker}: {figures}", flush=True)
    ground.write(figures, here.broker_url, here.database_url, suffix=f"_{broker}")
