"""The provider misbehaves: neighbours are answered, nothing is lost, and the bill stays within its bound."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually
from worker.sandbox.faults import Fault


@pytest.mark.parametrize(
    ("fault", "bought_again"),
    [
        pytest.param(Fault(kind="status", status=502), 50, id="html-502"),
        pytest.param(Fault(kind="status", status=429, processed=False), 0, id="429"),
        pytest.param(Fault(kind="hang"), 50, id="hang"),
        pytest.param(Fault(kind="reset"), 50, id="reset"),
        pytest.param(Fault(kind="reset", processed=False), 0, id="reset-unprocessed"),
        pytest.param(Fault(kind="truncate"), 50, id="truncated"),
        pytest.param(Fault(kind="cut"), 50, id="half-the-json"),
        pytest.param(Fault(kind="drop", index=7), 1, id="missing-item"),
        pytest.param(Fault(kind="duplicate", index=7), 1, id="item-twice"),
        pytest.param(Fault(kind="foreign", index=7), 1, id="foreign-number"),
        pytest.param(Fault(kind="reorder"), 0, id="other-order"),
        pytest.param(Fault(kind="trailing_comma"), 0, id="trailing-comma"),
        pytest.param(Fault(kind="code", code=-8), 0, id="system-error"),
    ],
)
def test_one_bad_answer(on_rabbitmq: Place, fault: Fault, bought_again: int) -> None:
    """One batch of 50 meets the fault; each number is answered, and billed again only where it must be."""
    here = on_rabbitmq
    here.settings["provider_timeout_seconds"] = "0.5,1"
    numbers = plain_numbers(50, first=1)  # the foreign number is the first
    here.sandbox.faults.add(fault)
    here.send("sms.recheck_many", items=items(numbers))
    here.worker("sms", ready=False)
    rows = here.check_settled(50)
    here.stop()
    assert {(row["decision"], row["reason"]) for row in rows} == {("resend", "same_operator")}
    assert not here.count("dead_letter")
    again = sum(times - 1 for times in here.sandbox.bills().values())
    assert again == bought_again
    assert max(here.sandbox.bills().values()) <= 2
    # each second bill is one that a lost call explains
    (lost,) = here.rows("SELECT coalesce(sum(numbers), 0) AS n FROM lookup_call WHERE outcome = 'lost'")
    assert lost["n"] >= again


def test_poison_among_a_thousand(here: Place) -> None:
    """The provider refuses any batch with one number in it: that number stands alone in the end."""
    numbers = plain_numbers(1000)
    poison = numbers[617]
    here.sandbox.faults.add(Fault(kind="poison", mobile=poison, code=1))
    here.send("sms.recheck_many", items=items(numbers))
    here.worker("sms", ready=False)
    rows = {str(row["msisdn"]): row for row in here.check_settled(1000)}
    here.stop()
    told = rows.pop(poison)
    assert (told["decision"], told["reason"]) == ("undeliverable", "invalid_number")
    assert {(row["decision"], row["reason"]) for row in rows.values()} == {("resend", "same_operator")}
    assert here.sandbox.bills() == dict.fromkeys(rows, 1)
    assert not here.rows("SELECT * FROM gate")
    assert len(here.sandbox.asked) <= 2 * 10 + 1  # halved ten times


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(kind="poison", mobile="13900000000", code=-9), id="json-malformed"),
        pytest.param(Fault(kind="item_code", mobile="13900000000", code=-8), id="system-error"),
    ],
)
def test_one_number_that_is_never_answered(here: Place, fault: Fault) -> None:
    """Its neighbours are answered, and so is all that comes later: it does not stand in their way."""
    poison, *numbers = plain_numbers(1090)
    assert poison == fault.mobile
    ordered = here.sandbox.faults.add(fault)
    here.worker("sms")
    here.send("sms.recheck_many", items=items([poison, *numbers[:999]]))
    here.decided(999)
    eventually(lambda: times_asked(here, poison) >= 3, "some tries more", seconds=10)
    for first in (999, 1029, 1059):
        until = first + 30
        here.send_many("sms", numbers[first:until])
        here.decided(until, seconds=8 if first == 999 else 3)
    here.sandbox.faults.remove(ordered.id)
    # a number refused three times by itself is given up, one that met a passing trouble is not
    letters = here.rows("SELECT payload FROM dead_letter")
    assert [letter["payload"]["mobile"] for letter in letters] == ([poison] if fault.code == -9 else [])
    here.check_settled(1090 - len(letters), seconds=40)
    here.stop()
    answered = numbers if letters else [poison, *numbers]
    assert here.sandbox.bills() == dict.fromkeys(answered, 1)


def times_asked(here: Place, number: str) -> int:
    """Calls with this number in them."""
    return sum(number in call.mobiles for call in here.sandbox.asked)


def test_bad_items_in_an_answer(here: Place) -> None:
    """Numbers answered with a code of their own are decided by it; their neighbours are not touched."""
    numbers = plain_numbers(100)
    for number, code in zip(numbers, (-2, -3, -4, 1), strict=False):
        here.sandbox.faults.add(Fault(kind="item_code", mobile=number, code=code))
    flaky = here.sandbox.faults.add(Fault(kind="item_code", mobile=numbers[4], code=-8))
    here.send("sms.recheck_many", items=items(numbers))
    here.worker("sms", ready=False)
    eventually(lambda: here.count("check_request") >= 99, "99 decided requests")
    here.sandbox.faults.remove(flaky.id)
    rows = {str(row["msisdn"]): row for row in here.check_settled(100)}
    here.stop()
    said = [(rows[number]["decision"], rows[number]["reason"]) for number in numbers[:5]]
    assert said == [
        ("undeliverable", "invalid_number"),
        ("undeliverable", "invalid_number"),
        ("undeliverable", "unknown_number"),
        ("undeliverable", "invalid_number"),
        ("resend", "same_operator"),
    ]
    assert {rows[number]["reason"] for number in numbers[5:]} == {"same_operator"}
    assert max(here.sandbox.bills().values()) == 1


def test_a_provider_that_is_down(here: Place) -> None:
    """Every call fails: shoppers are told in time, one number probes, messages wait for their answer."""
    here.settings["provider_timeout_seconds"] = "0.3,0.5"
    numbers = plain_numbers(300)
    down = here.sandbox.faults.add(Fault(kind="code", code=-8, calls=None))
    here.upkeep()
    here.worker("sms")
    here.worker("recharge")
    here.send_many("sms", numbers)
    started = time.monotonic()
    told = here.send("recharge.precheck", order_id="A", mobile=numbers[0], operator="CMCC").get(10)
    assert (told["decision"], told["reason"]) == ("unverified", "provider_failing")
    assert time.monotonic() - started < 5.5

    eventually(lambda: len(probes(here)) >= 2, "calls after two were lost")
    assert {row["numbers"] for row in probes(here)} == {1}
    here.sandbox.faults.remove(down.id)
    here.check_settled(301, seconds=40)
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)


def probes(here: Place) -> list[dict[str, Any]]:
    """The calls of lane sms that were sent when two had failed already."""
    return here.rows("""
        SELECT numbers FROM lookup_call WHERE lane = 'sms' AND sent_at > (
            SELECT answered_at + interval '0.05 s' FROM lookup_call
            WHERE lane = 'sms' ORDER BY answered_at OFFSET 1 LIMIT 1
        )
    """)


def items(numbers: list[str]) -> list[dict[str, Any]]:
    return [{"message_id": f"M{number}", "mobile": number, "operator": "CMCC"} for number in numbers]


def test_every_number_is_refused(here: Place) -> None:
    """Code 1 for whatever is asked, while /balance is well: that is no thousand wrong numbers."""
    numbers = plain_numbers(200)
    fault = here.sandbox.faults.add(Fault(kind="code", code=1, calls=None, on="carrier_batch"))
    single = here.sandbox.faults.add(Fault(kind="code", code=1, calls=None, on="carrier"))
    here.upkeep()
    here.worker("sms")
    here.send("sms.recheck_many", items=items(numbers))
    eventually(lambda: here.rows("SELECT * FROM gate"), "a closed gate", seconds=10)
    for one in (fault, single):
        here.sandbox.faults.remove(one.id)
    rows = here.check_settled(200)
    here.stop()
    assert sum(row["reason"] == "invalid_number" for row in rows) <= 1
