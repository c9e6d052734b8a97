"""The provider fails for a while, on both brokers; tests/faults/parts/misbehaviours.py has every fault."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually
from worker.sandbox.faults import Fault


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

    ended = "SELECT FROM lookup_call WHERE lane = 'sms' AND outcome <> 'calling'"
    eventually(lambda: len(here.rows(ended)) >= 2, "two calls lost, and every worker told")
    known_at = time.time()
    eventually(lambda: len(probes(here, known_at)) >= 2, "calls after two were lost")
    assert set(probes(here, known_at)) == {1}
    here.sandbox.faults.remove(down.id)
    here.check_settled(301, seconds=40)
    here.stop()
    assert here.sandbox.bills() == dict.fromkeys(numbers, 1)


def probes(here: Place, known_at: float) -> list[int]:
    """The numbers of each call of lane sms whose batch began since then, as the time in its id says."""
    calls = here.rows("SELECT batch_id, numbers FROM lookup_call WHERE lane = 'sms'")
    return [row["numbers"] for row in calls if (UUID(str(row["batch_id"])).int >> 80) > known_at * 1000]


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
