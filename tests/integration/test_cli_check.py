"""``presend check`` against the sandbox: answers, screens and exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager

import psycopg
import pytest

from tests.commands import APIKEY, environment, presend
from worker.carrier.protocol import FeeType
from worker.sandbox.provider import Account, Latency, Sandbox
from worker.sandbox.serving import serving

PORTED = "13972565391"  # the document's own: CMCC -> CTCC


def sandbox(*, balance: int) -> AbstractContextManager[str]:
    account = Account(APIKEY, FeeType.PREPAID, balance)
    return serving(Sandbox(accounts=[account], latency=Latency(scale=0)))


@pytest.fixture
def env(database_url: str, redis_url: str) -> Iterator[dict[str, str]]:
    with sandbox(balance=100) as url:
        yield environment(
            database_url=database_url,
            broker_url=redis_url,
            redis_url=redis_url,
            provider_url=url,
            provider_apikey=APIKEY,
        )


def test_an_answer_is_a_panel_without_the_number(env: dict[str, str]) -> None:
    done = presend("check", PORTED, env=env)
    assert done.returncode == 0
    for words in (
        "139****5391",
        "已携转",
        "CTCC 中国电信",
        "CMCC 中国移动",
        "湖北-宜昌",
        "(live)",
        "1 look-up",
    ):
        assert words in done.stdout
    assert PORTED not in done.stdout
    assert done.stderr == ""


def test_a_stored_answer_costs_nothing(env: dict[str, str]) -> None:
    presend("check", PORTED, env=env)
    done = presend("check", "+86 139-7256-5391", "--max-age", "3600", env=env)
    assert "(stored)" in done.stdout
    assert "0 look-ups" in done.stdout
    assert "(live)" in presend("check", PORTED, env=env).stdout


def test_json_is_the_events_data(env: dict[str, str], database_url: str) -> None:
    data = json.loads(presend("check", PORTED, "--json", env=env).stdout)
    assert (data["mobile"], data["status"], data["current_operator"]) == (PORTED, "ported", "CTCC")
    assert (data["lane"], data["source"]) == ("direct", "cli")
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT reference FROM check_request").fetchone()
    assert row == (data["reference"],)


@pytest.mark.parametrize("mobile", ["12345", "12972565391", "139 7256 539x", ""])
def test_what_is_no_mobile_number_is_a_wrong_usage(env: dict[str, str], mobile: str) -> None:
    done = presend("check", mobile, env=env)
    assert done.returncode == 2
    assert "Invalid value for MOBILE" in done.stderr


def test_a_closed_gate_is_no_answer(env: dict[str, str]) -> None:
    with sandbox(balance=0) as url:
        done = presend("check", PORTED, "--json", env=env | {"PRESEND_PROVIDER_URL": url})
    assert done.returncode == 3
    assert "no answer: the gate was closed by provider" in done.stderr
    assert json.loads(done.stdout)["reason"] == "gate_closed"


def test_a_provider_that_is_away_is_no_answer(env: dict[str, str]) -> None:
    done = presend("check", PORTED, env=env | {"PRESEND_PROVIDER_URL": "http://127.0.0.1:9"})
    assert done.returncode == 3
    assert done.stderr.startswith("Error: no answer: the provider is failing")


def test_a_database_without_tables_says_upgrade(env: dict[str, str], empty_database_url: str) -> None:
    done = presend("check", PORTED, env=env | {"PRESEND_DATABASE_URL": empty_database_url})
    assert done.returncode == 1
    assert "run presend db upgrade" in done.stderr
