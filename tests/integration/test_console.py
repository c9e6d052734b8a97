"""What operators do on the console, over a real database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.operators_console import Watched, operators_console
from worker.portability.requests import Lane
from worker.storage import calls as stored_calls
from worker.storage import dead_letters, engine, gate, lane_pauses, operators, outbox
from worker.storage.budget import Budget
from worker.storage.calls import Call, EndedCall
from worker.storage.dead_letters import DeadLetter
from worker.storage.ids import new_id
from worker.storage.operators import Role
from worker.storage.postgres_store import PostgresStore
from worker.storage.statements import Statement, run


@pytest.fixture
def console(database_url: str) -> Iterator[Watched]:
    with operators_console(database_url, daily_budget=1000) as made:
        yield made


def test_the_gate_is_closed_and_opened_with_a_reason_that_stands_in_the_trail(console: Watched) -> None:
    mei = console.client("mei")
    assert mei.submit("/gate/close", page="/gate", reason="  ").status_code == 422
    assert engine.read(console.database, gate.closed) == []
    assert mei.submit("/gate/close", page="/gate", reason="ask 13812345678 first").status_code == 303
    (closed,) = engine.read(console.database, gate.closed)
    assert (closed.closed_by, closed.reason) == ("mei", "ask 138****5678 first")
    assert "closed by hand" in mei.get("/").text
    assert mei.submit("/gate/open", page="/gate", reason="asked").status_code == 303
    assert engine.read(console.database, gate.closed) == []
    trail = mei.get("/trail").text
    assert "ask 138****5678 first" in trail
    assert trail.index(">opened</span>") < trail.index(">closed</span>")
    assert "asked" not in mei.get("/trail", params={"action": "close"}).text


def test_a_gate_the_provider_closed_is_opened_only_when_that_is_asked_for(console: Watched) -> None:
    account = console.its.observing.account
    assert account is not None
    engine.transact(console.database, lambda to: gate.close(to, account, by="provider", reason="code -5"))
    mei = console.client("mei")
    mei.submit("/gate/open", page="/gate", reason="just so")
    assert len(engine.read(console.database, gate.closed)) == 1
    mei.submit("/gate/open", page="/gate", reason="topped up", provider="yes")
    assert engine.read(console.database, gate.closed) == []


def test_a_lane_is_paused_and_resumed(console: Watched) -> None:
    mei = console.client("mei")
    mei.submit("/lanes/sms/pause", page="/lanes/sms", reason="the gateway sends rubbish")
    (paused,) = engine.read(console.database, lane_pauses.read)
    assert (paused.lane, paused.paused_by) == (Lane.SMS, "mei")
    page = mei.get("/").text
    assert "the gateway sends rubbish" in page
    mei.submit("/lanes/sms/resume", page="/lanes/sms", reason="mended")
    assert engine.read(console.database, lane_pauses.read) == []
    assert mei.get("/lanes/direct").status_code == 404


def test_a_role_counts_at_once_and_a_disabled_operator_is_out(console: Watched) -> None:
    otto = console.client("otto")
    page = otto.get("/").text
    assert "Close the gate" not in page
    assert otto.submit("/gate/close", page="/", reason="x").status_code == 403
    engine.transact(console.database, lambda to: operators.set_role(to, "otto", Role.ACT, by="test"))
    assert otto.submit("/gate/close", page="/", reason="x").status_code == 303
    engine.transact(
        console.database, lambda to: operators.set_disabled(to, "otto", True, by="test", reason="left")
    )
    assert otto.get("/").headers["location"] == "/log-in"
    refused = console.client().submit(
        "/log-in", page="/log-in", name="otto", password="correct horse battery staple"
    )
    assert refused.status_code == 403


def undelivered(decided_at: datetime, *, numbers: int) -> Statement[None]:
    return outbox.adding(new_id(), lane=Lane.SMS, decided_at=decided_at, numbers=numbers, with_changes=True)


def test_the_overview_shows_processes_calls_spend_and_what_is_stuck(console: Watched) -> None:
    store = PostgresStore(console.database, daily=Budget(1000))
    store.announce([Lane.SMS])
    now = datetime.now(UTC)

    def call(sent_at: datetime, numbers: int) -> Call:
        return Call(new_id(), new_id(), Lane.SMS, "http://provider", sent_at, numbers, 60.0)

    def happened(to: object) -> None:
        ended = call(now - timedelta(minutes=2), 3)
        numbers = ["13800000001", "13800000002", "13800000003"]
        run(to, stored_calls.claiming(ended, numbers, overtaken=()))
        run(to, stored_calls.closing(EndedCall(ended, numbers, "answered", now, 2)))
        run(to, stored_calls.claiming(call(now, 5), [f"1380000001{n}" for n in range(5)], overtaken=()))
        run(
            to,
            undelivered(now - timedelta(minutes=1), numbers=3),
        )

    engine.transact(console.database, happened)
    store._presence.require()
    look, spend = console.its.live.look(), console.its.spending.now()
    (sms,) = [lane for lane in look.lanes if lane.lane is Lane.SMS]
    assert (sms.workers, sms.slots, sms.busy_slots, sms.open and sms.open.numbers) == (1, 8, 1, 5)
    assert sms.state == "running"
    assert look.events_stuck
    assert (spend.today, spend.last_hour, spend.calls_today) == (2, 2, 2)
    page = console.client("mei").get("/").text
    assert "Events of 1 batch wait" in page
    assert "No process works for the lane Recharge" in page
    assert console.client("mei").get("/rates.json").json()[0]
    store.close()


def test_a_number_is_explained_by_post_masked_and_looking_at_it_is_written_down(console: Watched) -> None:
    number = "13972565391"
    engine.transact(
        console.database,
        lambda to: dead_letters.add(
            to,
            [
                DeadLetter(
                    new_id(),
                    "sms.recheck",
                    {"message_id": "m1", "mobile": number},
                    "argument operator is missing",
                    "sms",
                    datetime.now(UTC) - timedelta(minutes=1),
                )
            ],
        ),
    )
    otto, mei = console.client("otto"), console.client("mei")
    for client in (otto, mei):
        told = client.submit("/explain", page="/explain", mobile="+86 139-7256-5391")
        assert "139****5391" in told.text
        assert "argument operator is missing" in told.text
    assert console.rows("SELECT FROM operator_action WHERE action = 'show'") == []
    assert otto.submit("/explain", page="/explain", mobile=number, unmasked="yes").status_code == 403
    shown = mei.submit("/explain", page="/explain", mobile=number, unmasked="yes").text
    assert f">{number}</span>" in shown
    looked = console.rows("SELECT who, subject FROM operator_action WHERE action = 'show'")
    assert [tuple(row) for row in looked] == [("mei", "number 139****5391")]
    before = mei.submit("/explain", page="/explain", mobile=number, at="2026-01-01T00:00:00").text
    assert "No request, change or dead letter names it." in before
    assert mei.submit("/explain", page="/explain", mobile="12", at="").status_code == 422
    assert mei.submit("/explain", page="/explain", mobile=number, at="yesterday").status_code == 422


def test_a_refused_log_in_stands_in_the_trail_and_what_may_be_a_password_does_not(console: Watched) -> None:
    stranger = console.client()
    for name in ("mei", "my-secret-password"):
        refused = stranger.submit("/log-in", page="/log-in", name=name, password="not that one")
        assert refused.status_code == 403
    query = (
        "SELECT who, action, subject, reason FROM operator_action WHERE action = 'refuse_log_in' ORDER BY id"
    )
    assert [tuple(row) for row in console.rows(query)] == [
        ("presend", "refuse_log_in", "operator mei", "from 192.0.2.1"),
        ("presend", "refuse_log_in", "an unknown name", "from 192.0.2.1"),
    ]
    for _ in range(20):
        stranger.submit("/log-in", page="/log-in", name="mei", password="not that one")
    assert len(console.rows(query)) == 2 + 4, "what the throttle refuses is not written down"
    chinese = console.client("otto").get("/trail", headers={"Accept-Language": "zh"}).text
    assert ">登录被拒</span>" in chinese
    assert "来自 192.0.2.1" in chinese
    assert "角色：操作" in chinese


def test_a_character_that_postgres_cannot_hold_is_replaced_where_it_can_be_seen(console: Watched) -> None:
    console.client("mei").submit("/gate/close", page="/gate", reason="a\0b")
    (closed,) = engine.read(console.database, gate.closed)
    assert closed.reason == "a\ufffdb"


def test_the_events_page_lists_the_batches_that_its_badge_counts(console: Watched) -> None:
    now = datetime.now(UTC)

    def decided(to: object) -> None:
        run(
            to,
            undelivered(now + timedelta(seconds=5), numbers=1),
        )

    engine.transact(console.database, decided)
    otto = console.client("otto")
    page = otto.get("/events").text
    assert "all confirmed" in page
    assert "waiting" not in page
    engine.transact(
        console.database,
        lambda to: run(
            to,
            undelivered(now - timedelta(seconds=5), numbers=1),
        ),
    )
    page = otto.get("/events").text
    assert "1 batch waits" in page
    assert page.count(">waiting</span>") == 1


def test_a_letter_is_shown_in_full_to_who_says_so(console: Watched) -> None:
    letter = DeadLetter(
        new_id(),
        "sms.recheck",
        {"mobile": 13972565391, "x": "<b>"},
        "mobile is a number",
        "sms",
        datetime.now(UTC),
    )
    engine.transact(console.database, lambda to: dead_letters.add(to, [letter]))
    otto, mei = console.client("otto"), console.client("mei")
    path = f"/dead/{letter.id}"
    assert "13972565391" not in otto.get("/dead").text + otto.get(path).text
    assert otto.submit(path, page="/").status_code == 403
    whole = mei.submit(path, page=path).text
    assert "13972565391" in whole
    assert "&lt;b&gt;" in whole
    looked = console.rows("SELECT who, subject FROM operator_action WHERE action = 'show'")
    assert [tuple(row) for row in looked] == [("mei", f"dead letter {letter.id}")]
    assert mei.get("/dead/nonsense").status_code == 404
    assert mei.get(f"/dead/{new_id()}").status_code == 404
