"""The account cannot buy: shoppers are told at once, messages wait, and all goes on when it is well."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually
from worker.sandbox.provider import DEFAULT_APIKEY


@pytest.mark.parametrize("fault", [{"disabled": True}, {"balance": 0}], ids=["disabled", "no-balance"])
def test_gate(here: Place, fault: dict[str, int]) -> None:
    known, *numbers = plain_numbers(21)
    here.worker("sms")
    here.worker("recharge")
    here.upkeep()
    here.send("recharge.precheck", order_id="known", mobile=known, operator="CMCC").get(10)
    account = here.sandbox.read_account(DEFAULT_APIKEY)
    assert account is not None
    here.sandbox.put_account(replace(account, **fault))  # type: ignore[arg-type]
    calls_before = len(here.sandbox.asked)

    here.send_many("sms", numbers)
    eventually(lambda: here.rows("SELECT * FROM gate"), "a closed gate")
    started = time.monotonic()
    told = [
        here.send("recharge.precheck", order_id=f"told{number}", mobile=number, operator="CMCC").get(10)
        for number in numbers[:5]
    ]
    assert {(one["decision"], one["reason"], one["answered_from"]) for one in told} == {
        ("unverified", "gate_closed", None)
    }
    assert time.monotonic() - started < 3, "a waiting shopper is told at once"
    # what is stored answers although the gate is closed
    stored = here.send("recharge.precheck", order_id="known again", mobile=known, operator="CMCC")
    with pytest.raises(Exception, match="order_id"):
        stored.get(10)
    stored = here.send("recharge.precheck", order_id="known-again", mobile=known, operator="CMCC").get(10)
    assert (stored["decision"], stored["answered_from"]) == ("confirmed", "stored")

    # nothing is asked while it is closed, and no sms is decided
    calls = len(here.sandbox.asked)
    assert calls - calls_before <= 2
    checked = here.sandbox.keys_checked
    eventually(lambda: here.sandbox.keys_checked >= checked + 4, "upkeep's looks at the balance")
    assert len(here.sandbox.asked) == calls
    # sms waits in its queue, not in a worker's hands
    eventually(
        lambda: here.messages_left() == {"sms": len(numbers)}, "all messages ready in their queue", seconds=10
    )
    assert not [row for row in here.ledger() if row["lane"] == "sms"]
    assert not here.rows("SELECT * FROM dead_letter WHERE task LIKE 'sms%%'")

    here.sandbox.put_account(account)
    eventually(lambda: not here.rows("SELECT * FROM gate"), "an open gate", seconds=10)
    rows = here.check_settled(7 + len(numbers))
    here.stop()
    assert {row["decision"] for row in rows if row["lane"] == "sms"} == {"resend"}
    assert here.sandbox.bills() == dict.fromkeys([known, *numbers], 1)


def test_a_key_that_is_no_longer_known(here: Place) -> None:
    """-1 for a batch: the same gate; /balance itself is refused too, so it stays closed."""
    numbers = plain_numbers(10)
    here.upkeep()
    here.worker("sms", provider_apikey="x" * 32)
    here.send_many("sms", numbers)
    (closed,) = eventually(lambda: here.rows("SELECT * FROM gate"), "a closed gate")
    assert "-1" in closed["reason"] or "key" in closed["reason"].lower()
    assert not here.ledger()
    assert "x" * 32 not in "".join(process.log for process in here.processes)
