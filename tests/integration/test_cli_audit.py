"""``presend audit`` beside a sandbox that overcharges, and how the balance is read over time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.commands import APIKEY, environment, presend
from tests.integration.bench import Bench
from worker.portability.reconciliation import Reading
from worker.sandbox.faults import Fault
from worker.sandbox.provider import Latency, Sandbox
from worker.sandbox.serving import serving
from worker.storage import balance_readings
from worker.storage.gate import account_id

NUMBERS = ("13972565391", "13798361236", "13352918995")


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(latency=Latency(scale=0))


@pytest.fixture
def env(sandbox: Sandbox, database_url: str, redis_url: str) -> Iterator[dict[str, str]]:
    with serving(sandbox) as url:
        yield environment(
            database_url=database_url,
            broker_url=redis_url,
            redis_url=redis_url,
            provider_url=url,
            provider_apikey=APIKEY,
        )


class _Hours:
    """Readings at moments apart, so that no test waits for the clocks' margin."""

    def __init__(self, bench: Bench, sandbox: Sandbox, provider_url: str) -> None:
        self._bench, self._carrier = bench, sandbox.account(APIKEY)
        self._account = account_id(provider_url, APIKEY)

    def read(self, hours: float) -> None:
        moment = datetime.now(UTC) + timedelta(hours=hours)
        balance = self._carrier.balance()
        reading = Reading(moment, moment, balance.balance)
        with self._bench.database.begin() as to:
            balance_readings.add(to, self._account, reading, balance.fee_type)


def test_an_overcharge_and_a_charged_failure_are_named(
    env: dict[str, str], sandbox: Sandbox, bench: Bench, database_url: str
) -> None:
    hours = _Hours(bench, sandbox, env["PRESEND_PROVIDER_URL"])
    hours.read(-3)
    presend("check", NUMBERS[0], env=env)
    with psycopg.connect(database_url) as database:  # as if it had been two hours ago
        database.execute(
            "UPDATE lookup_call SET sent_at = sent_at - interval '2h', "
            "answered_at = answered_at - interval '2h'"
        )
    hours.read(-1.5)
    quiet = presend("audit", env=env)
    assert quiet.returncode == 0, quiet.stderr
    assert "nothing is unexplained" in quiet.stdout

    sandbox.faults.add(Fault(kind="overcharge", numbers=7))
    presend("check", NUMBERS[1], env=env)
    sandbox.faults.add(Fault(kind="code", code=-8, on="carrier", charged=True))
    presend("check", NUMBERS[2], env=env)  # fails once, is asked again
    with psycopg.connect(database_url) as database:
        failed = database.execute("SELECT id FROM lookup_call WHERE outcome = 'refused'").fetchall()
        database.execute("UPDATE lookup_call SET sent_at = sent_at - interval '1h', "
                         "answered_at = answered_at - interval '1h' "
                         "WHERE sent_at > now() - interval '1h'")  # fmt: skip
    hours.read(-0.5)
    done = presend("audit", env=env)
    assert done.returncode == 1
    assert "8 look-ups to claim or to explain" in done.stderr
    assert "failed calls were charged" in done.stdout
    assert str(failed[0][0]) in done.stdout
    found = json.loads(presend("audit", "--json", env=env).stdout)
    assert [(each["gap"], each["numbers"]) for each in found["findings"]] == [
        ("failure_charged", 1),
        ("overcharged", 7),
    ]
    assert (found["billed"], found["fell"], found["unexplained"]) == (3, 11, 8)


def test_it_says_what_it_left_out_and_where_nothing_could_be_compared(
    env: dict[str, str], sandbox: Sandbox, bench: Bench, database_url: str
) -> None:
    hours = _Hours(bench, sandbox, env["PRESEND_PROVIDER_URL"])
    hours.read(-3)
    presend("check", NUMBERS[0], env=env)
    presend("check", NUMBERS[1], env=env)
    with psycopg.connect(database_url) as database:  # one of them was open while the balance was read first
        for hour, took, which in ((3, "10min", "min"), (2.5, "1s", "max")):
            database.execute(
                f"UPDATE lookup_call SET sent_at = now() - interval '{hour}h' - interval '5min', "
                f"answered_at = now() - interval '{hour}h' - interval '5min' + interval '{took}' "
                f"WHERE sent_at = (SELECT {which}(sent_at) FROM lookup_call)"
            )
    hours.read(-2)
    nothing = presend("audit", env=env)
    assert nothing.returncode == 0, nothing.stderr
    assert "nothing could be compared" in nothing.stdout
    assert "nothing is unexplained" not in nothing.stdout
    assert "1 call, as one was open at the first reading" in nothing.stdout
    hours.read(-1)
    rest = presend("audit", env=env)
    assert "left out: " in rest.stdout
    assert "nothing is unexplained" in rest.stdout
    assert json.loads(presend("audit", "--json", env=env).stdout)["left_out"]["calls"] == 1


def test_without_readings_it_says_what_reads_the_balance(env: dict[str, str]) -> None:
    done = presend("audit", env=env)
    assert done.returncode == 1
    assert "run presend worker, whose upkeep reads it" in done.stderr


def test_upkeep_keeps_the_first_and_the_last_of_equal_readings(bench: Bench) -> None:
    bench.now = datetime(2026, 11, 28, 8, tzinfo=UTC)
    upkeep = bench.upkeep(balance_seconds=30)

    def stored() -> list[tuple[int, int]]:
        rows = bench.rows("SELECT asked_at, balance FROM balance_reading ORDER BY asked_at")
        begin = datetime(2026, 11, 28, 8, tzinfo=UTC)
        return [(int((asked_at - begin).total_seconds()), balance) for asked_at, balance in rows]

    for seconds in (0, 10, 30, 60, 90):  # the second is too soon
        bench.now = datetime(2026, 11, 28, 8, tzinfo=UTC) + timedelta(seconds=seconds)
        upkeep.read_balance()
    full = 1_000_000
    assert stored() == [(0, full), (90, full)]
    bench.sandbox.account(APIKEY).lookup(NUMBERS[0])
    bench.now += timedelta(seconds=30)
    upkeep.read_balance()
    assert stored() == [(0, full), (90, full), (120, full - 1)]
