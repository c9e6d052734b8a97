"""A stopped lane gives its messages back, whoever stopped it, and takes them again when it goes on."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from tests.acceptance.harness import Place
from tests.acceptance.processes import celery
from tests.acceptance.provider import plain_numbers
from tests.acceptance.proxy import Proxy
from tests.acceptance.waiting import eventually
from tests.commands import command
from worker.sandbox.faults import Fault

REASON = "the gateway sends rubbish"


def ask(here: Place, *arguments: str) -> dict[str, Any]:
    """What each worker answers to a Celery command."""
    name = f"{arguments[1]}-{len(here.processes)}"
    asked = here.run(name, celery("--quiet", *arguments, "--json", "--timeout", "5"))
    assert asked.ended() == 0, asked.shown()
    answers = json.loads(asked.log.splitlines()[-1])
    return answers if isinstance(answers, dict) else {node: a for one in answers for node, a in one.items()}


def gate(here: Place, *arguments: str) -> str:
    run = here.run(f"gate-{len(here.processes)}", command("gate", *arguments))
    assert run.ended() == 0, run.shown()
    return run.log


def all_ready(here: Place, count: int) -> None:
    eventually(
        lambda: here.messages_left() == {"sms": count}, f"{count} messages ready, none in a hand", seconds=15
    )


def check_recharge_goes_on(here: Place, number: str) -> None:
    told = here.send("recharge.precheck", order_id=f"shop{number}", mobile=number, operator="CMCC").get(10)
    assert told["decision"] == "confirmed"


def test_a_paused_lane(here: Place) -> None:
    """Calls in flight end, what waits is in the queue until the lane is resumed, in every worker."""
    numbers = plain_numbers(1300)
    many = numbers[200:1199]
    here.settings |= {"sms_slots": "1", "provider_timeout_seconds": "60"}
    here.worker("sms")
    here.worker("sms", "recharge")
    elsewhere = here.worker("recharge")
    with here.sandbox.held():
        here.send_many("sms", numbers[:10])
        here.sandbox.wait_for_call(2)
        here.send_many("sms", numbers[10:200])
        # longer than a call: some of its items are decided, others wait, and it goes back whole
        items = [{"message_id": f"many{number}", "mobile": number, "operator": "CMCC"} for number in many]
        here.send("sms.recheck_many", items=[*items, {"message_id": "bad"}])
        eventually(lambda: "sms" not in here.messages_left(), "all messages in the workers' hands")

        answers = ask(here, "control", "pause_lane", "sms", "mei", REASON).values()
        assert [answer["ok"] for answer in answers] == ["lane sms is paused"] * 3
        for answer in ask(here, "control", "pause_lane", "sms").values():
            assert f": {REASON}" in answer["ok"]
            assert "was paused already, by mei since " in answer["ok"]
        for worker in here.processes[:2]:
            worker.wait_for("lane_stopped")
        calls = len(here.sandbox.asked)
    eventually(lambda: not here.sandbox.in_flight(), "the calls in flight to end")
    eventually(here.ledger, "the answers of the calls in flight")
    check_recharge_goes_on(here, numbers[-1])
    eventually(lambda: here.messages_left().keys() == {"sms"}, "all messages ready, none in a hand")
    assert [worker.log.count("lane_stopped") for worker in (*here.processes[:2], elsewhere)] == [1, 1, 0]
    shown_by = [shown for shown in ask(here, "inspect", "lanes").values() if "sms" in shown]
    for stopped in (shown["sms"]["stopped"] for shown in shown_by):
        assert (stopped["cause"], stopped["reason"]) == ("paused", REASON)
    assert len(here.sandbox.asked) == calls + 1, "nothing is asked for a paused lane"

    assert len(ask(here, "control", "resume_lane", "sms")) == 3
    here.send_many("sms", numbers[1199:1299])
    rows = here.check_settled(1300)
    here.stop()
    assert {row["decision"] for row in rows} == {"resend", "confirmed"}
    assert here.count("dead_letter") == 1
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)
    actions = here.rows("SELECT who, action, subject, reason FROM operator_action ORDER BY at")
    assert [tuple(one.values()) for one in actions] == [
        ("mei", "pause", "lane sms", REASON),
        ("celery control", "resume", "lane sms", "none given"),
    ], "a pause that paused nothing is no action"


def test_an_unknown_lane_or_nobody_or_an_empty_reason_pauses_nothing(on_redis: Place) -> None:
    on_redis.worker("sms")
    for arguments, says in (
        (("smss",), "unknown lane 'smss': name one of recharge, sms"),
        (("sms", "upkeep", REASON), "'upkeep' is what presend calls itself"),
        (("sms", "mei", " "), "say why, as in: celery -A worker.app control pause_lane sms mei"),
    ):
        (answer,) = ask(on_redis, "control", "pause_lane", *arguments).values()
        assert says in answer["error"]
    assert not on_redis.rows("SELECT * FROM lane_pause")


def test_a_pause_outlives_workers_and_connections(cuttable: tuple[Place, Proxy]) -> None:
    here, proxy = cuttable
    numbers = plain_numbers(60)
    here.worker("sms")
    ask(here, "control", "pause_lane", "sms", "mei", REASON)
    here.processes[0].wait_for("lane_stopped")
    here.send_many("sms", numbers[:20])
    assert here.processes[0].stop() == 0

    worker = here.worker("sms")  # started while its lane is paused
    here.send_many("sms", numbers[20:40])
    assert proxy.cut() >= 1

    def answer() -> Any:
        with suppress(AssertionError):  # nobody answers while it reconnects
            return ask(here, "inspect", "lanes")
        return None

    eventually(answer, "the worker's answer over its new connection")
    here.send_many("sms", numbers[40:])
    all_ready(here, 60)
    assert worker.alive
    assert not here.sandbox.asked

    ask(here, "control", "resume_lane", "sms", "mei")
    here.check_settled(60)
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)


def test_a_gate_closed_by_hand(here: Place) -> None:
    """It stops every account, upkeep does not open it, and nothing that waits is lost or asked for."""
    numbers = plain_numbers(40)
    here.sandbox.faults.add(Fault(kind="code", code=-8, calls=None))  # so that messages wait in the lane
    here.worker("sms", "recharge")
    here.upkeep()
    here.send_many("sms", numbers[:30])
    eventually(lambda: here.count("lookup_call") >= 1, "calls in vain")

    gate(here, "close", "--reason", "prices change", "--by", "mei")
    all_ready(here, 30)
    here.sandbox.faults.clear()
    calls = len(here.sandbox.asked)
    told = here.send("recharge.precheck", order_id="told", mobile=numbers[-1], operator="CMCC").get(10)
    assert (told["decision"], told["reason"]) == ("unverified", "gate_closed")
    here.send_many("sms", numbers[30:39])
    assert "mei" in gate(here, "show")
    all_ready(here, 39)
    assert len(here.sandbox.asked) == calls

    gate(here, "open", "--by", "mei")
    here.check_settled(40)
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers[:39], 1)
