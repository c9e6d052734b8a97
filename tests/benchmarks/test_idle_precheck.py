"""How much of a shopper's wait is presend's: one precheck at a time, beside the provider asked directly.

The two are asked in turn, in one run, each for a number nobody asked before. The precheck is measured where
the shop waits: from ``send_task`` to the return of ``.get()``, in another process than worker and provider.
"""

from __future__ import annotations

import sys
import time

import pytest

from tests.acceptance.harness import Place
from tests.benchmarks import record
from worker.carrier.client import HttpCarrier
from worker.sandbox.provider import DEFAULT_APIKEY

ROUNDS, WARM_UP = 120, 10


@pytest.mark.timeout(180)
def test_idle_precheck(here: Place) -> None:
    provider = here.run("sandbox", [sys.executable, "-m", "worker.cli", "sandbox", "--port", "0"])
    provider.wait_for("http://")
    url = next(word for word in provider.log.split() if word.startswith("http://")).rstrip("/,.")
    here.worker("recharge", provider_url=url)
    carrier = HttpCarrier(url, DEFAULT_APIKEY)
    direct, precheck = [], []
    for index in range(ROUNDS + WARM_UP):
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
        "rounds": ROUNDS,
        "provider_p50_ms": record.quantile_ms(direct[WARM_UP:], 0.5),
        "provider_p99_ms": record.quantile_ms(direct[WARM_UP:], 0.99),
        "precheck_p50_ms": record.quantile_ms(precheck[WARM_UP:], 0.5),
        "precheck_p99_ms": record.quantile_ms(precheck[WARM_UP:], 0.99),
    }
    figures["over_provider_p50_ms"] = round(figures["precheck_p50_ms"] - figures["provider_p50_ms"], 1)
    broker = "redis" if here.on_redis else "rabbitmq"
    print(f"\nidle precheck over {broker}: {figures}")  # noqa: T201
    record.write(f"idle_precheck_{broker}", figures, command="make bench ARGS='-k idle_precheck'")
