"""The story of one number, as of now and of a time between; and ``presend explain``, which tells it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.acceptance.waiting import eventually
from tests.commands import environment, presend
from tests.integration.bench import HOME, Bench, run
from worker.carrier.protocol import FeeType
from worker.portability.freshness import Objection
from worker.portability.records import AnsweredFrom
from worker.portability.requests import Lane
from worker.storage import accounts, dead_letters, engine, holds, number_story, statements
from worker.storage.accounts import Movement
from worker.storage.dead_letters import DeadLetter
from worker.storage.holds import Opening
from worker.storage.ids import new_id
from worker.storage.number_story import Story

BEGAN = datetime(2026, 11, 24, 4, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture
def moved(bench: Bench) -> Bench:
    """A number that was checked, answered from store, ported, checked and rerouted."""
    pipeline = bench.pipeline()
    bench.now = BEGAN
    run(pipeline, bench.request(Lane.RECHARGE, HOME, reference="A1"))
    bench.now = BEGAN + 5 * MINUTE
    run(pipeline, bench.request(Lane.RECHARGE, HOME, reference="A2"))
    bench.sandbox.port(HOME, "CUCC")
    bench.now = BEGAN + 8 * MINUTE
    run(pipeline, bench.request(Lane.SMS, HOME, reference="B1", failure_code="MK:0001"))
    return bench


def told(bench: Bench, at: datetime | None = None, most: int = 10) -> Story:
    rules = bench.rules()
    return engine.read(bench.database, lambda to: number_story.tell(to, HOME, rules=rules, at=at, most=most))


def test_checked_ported_checked_and_rerouted(moved: Bench) -> None:
    story = told(moved, BEGAN + 9 * MINUTE)
    first, stored, rerouted = story.requests
    assert [each.objection for each in story.requests] == [
        Objection.NO_RECORD,
        None,
        Objection.CHANNEL_FAILED,
    ]
    assert stored.row.answered_from is AnsweredFrom.STORED
    assert stored.buyer == first.row.key
    assert first.shared_with == (stored.row.key,)
    assert rerouted.met is not None
    assert (rerouted.met.current_operator, rerouted.met.observed_at) == ("CMCC", BEGAN)
    assert (rerouted.row.decision, rerouted.row.target_operator) == ("reroute", "CUCC")
    assert rerouted.call is not None
    assert (rerouted.call.numbers, rerouted.call.billed) == (1, 1)
    assert all(each.emitted_at is not None for each in (*story.requests, *story.changes))
    (change,) = story.changes
    assert (change.change.donor, change.change.recipient) == ("CMCC", "CUCC")
    assert story.record is not None
    assert (story.record.current_operator, story.bought, story.earlier_requests) == ("CUCC", 2, 0)


def test_a_time_between_knows_nothing_of_what_came_later(moved: Bench) -> None:
    story = told(moved, BEGAN + 6 * MINUTE)
    assert [each.row.reference for each in story.requests] == ["A1", "A2"]
    assert story.changes == ()
    assert story.record is not None
    assert (story.record.current_operator, story.record.observed_at) == ("CMCC", BEGAN)
    assert story.record.changed_at is None
    assert told(moved, BEGAN - SECOND).record is None


def test_what_was_open_then_is_told_as_open(moved: Bench) -> None:
    """The call's answer, the decision and its event came a second and more after the request."""
    moved.rows("UPDATE lookup_call SET answered_at = answered_at + interval '2s' RETURNING id")
    with moved.database.begin() as to:
        for table, column in (("check_request", "decided_at"), ("lookup_batch", "emitted_at")):
            to.exec_driver_sql(f"UPDATE {table} SET {column} = {column} + interval '3s'")
        to.exec_driver_sql("UPDATE lookup_call SET answered_at = answered_at + interval '2s'")
    story = told(moved, BEGAN + 8 * MINUTE + SECOND)
    last = story.requests[-1]
    assert (last.row.reference, last.decided, last.emitted_at) == ("B1", False, None)
    assert last.call is not None
    assert (last.call.outcome, last.call.answered_at, last.call.billed) == ("calling", None, None)
    assert story.record is not None
    assert story.record.current_operator == "CMCC"


def test_letters_lost_calls_and_the_newest_requests(moved: Bench) -> None:
    letters = [
        DeadLetter(
            new_id(),
            "sms.recheck",
            {"mobile": written},
            "operator must be one of …",
            "sms",
            BEGAN,
            replayed_at=None,
        )
        for written in ("137 9836 1236", "13798361237")
    ]
    with moved.database.begin() as to:
        dead_letters.add(to, letters)
        to.exec_driver_sql(
            "INSERT INTO lookup_call (id, batch_id, lane, provider, sent_at, numbers, outcome, until, owner,"
            " unanswered)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), 'sms', 'p', %s, 2, 'lost', now(), 0, %s)",
            (BEGAN, [int(HOME), 13798361237]),
        )
    story = told(moved, most=1)
    assert [one.id for one in story.letters] == [letters[0].id]
    assert [(one.numbers, one.lost, one.overtook) for one in story.lost_calls] == [(2, True, False)]
    assert ([each.row.reference for each in story.requests], story.earlier_requests) == (["B1"], 2)
    assert told(moved, BEGAN - SECOND).letters == ()


def test_a_direct_callers_request_names_the_account_it_was_charged_to(moved: Bench) -> None:
    call = new_id()
    with moved.database.begin() as to:
        shop, key = accounts.create(to, "shop", fee_type=FeeType.PREPAID, balance=10, by="mei")
        holds.open_calls(to, [Opening(call, accounts.key_hash(key), 2)], hold_seconds=60)
        statements.run(to, holds.settling({call: 2}))
    moved.now = datetime.now(UTC)
    run(moved.pipeline(), moved.request(Lane.DIRECT, HOME, source=shop.id, reference=f"{call}:1"))
    last = told(moved).requests[-1]
    assert [(one.account, one.kind, one.amount, one.balance) for one in last.charges] == [
        ("shop", Movement.CHARGE, -2, 8)
    ]
    assert (last.objection, last.emitted_at) == (Objection.LIVE_WANTED, None)


def test_no_table_is_read_whole(moved: Bench, database_url: str) -> None:
    ways = "SELECT relname, coalesce(idx_scan, 0), seq_scan FROM pg_stat_user_tables"
    reading = engine.connect(database_url, by_key=True)
    moved.database.dispose()  # Postgres counts what a connection did at its end
    with psycopg.connect(database_url, autocommit=True) as connection:

        def scans() -> dict[str, tuple[int, int]]:
            return {name: counts for name, *counts in connection.execute(ways)}  # type: ignore[misc]

        before = eventually(lambda: scans() if scans()["lookup_call"][0] else None, "the fixture's counts")
        engine.read(reading, lambda to: number_story.tell(to, HOME, rules=moved.rules()))
        reading.dispose()
        eventually(lambda: scans()["port_change"][0] > before["port_change"][0], "the story's counts")
        read_whole = {name for name, (_, whole) in scans().items() if whole > before[name][1]}
    assert not read_whole & {"check_request", "lookup_call", "lookup_batch", "port_record", "port_change"}


@pytest.fixture
def env(moved: Bench, database_url: str) -> dict[str, str]:
    return environment(database_url=database_url)


def test_the_screen_tells_it(env: dict[str, str]) -> None:
    done = presend("explain", "+86 137 9836 1236", env=env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) < 24
    for words in (
        "13798361236  now: CUCC 联通, ported, range of CMCC 移动",
        "recharge A1  sells CMCC",
        "bought (nothing was known of it): 1 look-up, billed",
        "answered recharge A2 too",
        "answered from store, at no cost: bought 5 minutes before for recharge A1; 10 minutes are allowed",
        "→ confirmed: still with CMCC; recharge.confirmed out after",
        "sms B1  failed by CMCC, code MK:0001",
        "names the channel that failed since",
        "→ reroute to CUCC 联通: no longer with CMCC; sms.reroute out after",
        "ported from CMCC 移动 to CUCC 联通",
        "3 requests in the ledger, for which it was bought 2 times",
    ):
        assert words in done.stdout


def test_what_a_dead_call_may_have_cost_is_told_in_lines_as_wide_as_columns_says(
    moved: Bench, env: dict[str, str]
) -> None:
    with moved.database.begin() as to:
        to.exec_driver_sql(
            "INSERT INTO lookup_call (id, batch_id, lane, provider, sent_at, numbers, outcome, until, owner,"
            " unanswered)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), 'sms', 'p', %s, 1, 'lost', now(), 0, %s)",
            (BEGAN, [13798361236]),
        )
    lines = presend("explain", "13798361236", env=env | {"COLUMNS": "80"}).stdout.splitlines()
    assert "bought 2 times, and perhaps once more in 1 lost call" in " ".join(lines[-2:])
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line != line.rstrip()] == []


def test_as_of_a_time_between_and_from_standard_input(env: dict[str, str]) -> None:
    at = (BEGAN + 6 * MINUTE).isoformat()
    done = presend("explain", "-", "--at", at, env=env, stdin=b"13798361236\n")
    assert "CMCC 移动, not_ported" in done.stdout
    assert "CUCC" not in done.stdout
    told_ = json.loads(presend("explain", "13798361236", "--at", at, "--json", env=env).stdout)
    assert told_["record"]["current_operator"] == "CMCC"
    assert [each["row"]["reference"] for each in told_["requests"]] == ["A1", "A2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["123"], "not a mobile number"),
        (["13798361236", "--at", "noon"], "not a moment: write 2026-11-28T21:05:00"),
    ],
)
def test_a_wrong_word_is_told(env: dict[str, str], arguments: list[str], words: str) -> None:
    done = presend("explain", *arguments, env=env)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_number_nobody_asked_for(env: dict[str, str]) -> None:
    shown = presend("explain", "13812345678", env=env).stdout
    assert "nothing is known of it" in shown
    assert "no request, change or dead letter names it" in shown
