"""``presend gate``: by hand before the provider, for everybody, and written down."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.commands import environment, presend
from worker.portability.requests import Lane
from worker.storage import engine, gate, lane_pauses
from worker.storage.budget import Budget, take
from worker.storage.engine import connect
from worker.storage.ids import new_id

ACCOUNT = "0123456789abcdef"


@pytest.fixture
def database(database_url: str) -> Any:
    made = connect(database_url, connections=2)
    yield made
    made.dispose()


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return environment(database_url=database_url)


def shown(env: dict[str, str]) -> dict[str, Any]:
    done = presend("gate", "show", "--history", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_closed_by_hand_it_wins_and_only_a_hand_opens_it(database: Engine, env: dict[str, str]) -> None:
    close_for_the_provider(database)
    assert presend("gate", "close", "--reason", "audit", "--by", "mei", env=env).returncode == 0
    read = engine.read(database, lambda to: gate.read(to, ACCOUNT))
    assert read is not None
    assert (read.by_hand, read.closed_by, read.reason) == (True, "mei", "audit")
    assert engine.read(database, lambda to: gate.read(to, "another account")) == read
    again = presend("gate", "close", "--reason", "me too", "--by", "li", env=env)
    assert "closed already, by mei" in again.stdout

    opened = presend("gate", "open", "--by", "li", env=env)
    assert opened.returncode == 1, "another gate still is closed"
    assert "out of money" in opened.stderr
    assert "gate open --provider" in opened.stderr
    left = engine.read(database, lambda to: gate.read(to, ACCOUNT))
    assert left is not None
    assert not left.by_hand
    assert presend("gate", "open", "--provider", "--by", "li", env=env).returncode == 0
    assert shown(env)["stopped"] == []
    assert [(one["who"], one["action"], one["subject"]) for one in shown(env)["history"]] == [
        ("li", "open", f"gate of account {ACCOUNT}"),
        ("li", "open", "gate of every account"),
        ("li", "close", "gate of every account"),
        ("mei", "close", "gate of every account"),
        ("provider", "close", f"gate of account {ACCOUNT}"),
    ]


def test_show_says_what_to_do(database: Engine, env: dict[str, str]) -> None:
    assert "the gate is open" in presend("gate", "show", env=env).stdout
    close_for_the_provider(database)
    engine.transact(
        database, lambda to: lane_pauses.pause(to, Lane.SMS, by="mei", reason="13972565391 \x1b[31m")
    )
    provider, lane = shown(env)["stopped"]
    assert (provider["by"], provider["reason"]) == ("provider", "out of money")
    assert "by itself" in provider["next_step"]
    assert lane["next_step"] == "celery -A worker.app control resume_lane sms YOUR_NAME"
    screen = presend("gate", "show", "--history", env=env).stdout
    assert "lane sms" in screen
    assert "13972565391" not in screen
    assert "\x1b" not in screen


def test_who_pauses_what_is_paused_already_is_not_in_the_history(
    database: Engine, env: dict[str, str]
) -> None:
    """Nor is a pause there twice, though every worker gets the command."""
    for by in ("mei", "mei", "li"):
        stands = engine.transact(
            database, lambda to, by=by: lane_pauses.pause(to, Lane.SMS, by=by, reason="x")
        )
        assert stands.paused_by == "mei"
    assert [(one["who"], one["action"]) for one in shown(env)["history"]] == [("mei", "pause")]


def test_times_are_those_of_the_zone_whose_midnight_ends_the_day(database_url: str) -> None:
    env = environment(database_url=database_url, daily_budget="10", timezone="Asia/Kolkata")
    assert " 00:00:00+05:30" in presend("gate", "show", env=env).stdout


def test_show_tells_the_budget_and_who_may_buy_nothing_more(database: Engine, database_url: str) -> None:
    env = environment(database_url=database_url, daily_budget="10", budget_reserve="0.2", timezone="UTC")
    assert "0 of today's 10 numbers are taken" in presend("gate", "show", env=env).stdout
    stopped = []
    for numbers in (8, 2):
        engine.transact(
            database,
            lambda to, wanted=numbers: take(to, Budget(10, timezone="UTC"), Lane.RECHARGE, new_id(), wanted),
        )
        (stop,) = shown(env)["stopped"]
        stopped.append(stop["what"])
    assert stopped == ["lane sms", "buying, in every lane"]
    assert "PRESEND_DAILY_BUDGET" in stop["next_step"]
    told = shown(env)["budget"]
    midnight = datetime.fromisoformat(told.pop("ends_at"))
    assert told == {"daily": 10, "taken": 10, "kept_for_recharges": 2}
    assert 0 < (midnight - datetime.now(UTC)).total_seconds() <= 86400
    assert midnight.astimezone(UTC).time() == time()


def test_nobody_closes_it_as_somebody_else_or_for_nothing(env: dict[str, str]) -> None:
    for arguments in (
        ("close", "--by", "mei"),
        ("close", "--by", "mei", "--reason", " "),
        ("close", "--by", "provider", "--reason", "x"),
        ("close", "--by", " ", "--reason", "x"),
    ):
        assert presend("gate", *arguments, env=env).returncode == 2
    assert shown(env)["history"] == []


def close_for_the_provider(database: Engine) -> None:
    engine.transact(database, lambda to: gate.close(to, ACCOUNT, by=gate.BY_PROVIDER, reason="out of money"))
