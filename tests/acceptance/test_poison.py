"""One item that kills its worker, or that its worker always fails on: it alone is given up.

No message comes near RabbitMQ's own limit of 100 deliveries, beyond which it would end in ``presend.dead``.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.acceptance.harness import Place
from tests.acceptance.processes import Process
from tests.acceptance.provider import plain_numbers
from tests.acceptance.waiting import eventually

NUMBERS = 1000
MOST_DEATHS = 6
"""Two before anything is suspected, one in a batch of suspects of each size (1000 and 32), two alone."""
MOST_LISTED = 3 * 1000 + 32 + 2
"""Numbers in the calls that these deaths leave open."""


def _poisoned(here: Place, how: str, number: str) -> Process:
    return here.run("poisoned", [sys.executable, "-m", "tests.acceptance.poisoned", how, number])


def _send(here: Place, numbers: list[str], *, many: bool) -> None:
    if many:
        items = [{"message_id": f"R{number}", "mobile": number, "operator": "CMCC"} for number in numbers]
        here.send("sms.recheck_many", items=items)
    else:
        here.send_many("sms", numbers)


def _only_one_is_given_up(here: Place, numbers: list[str], poison: str) -> str:
    """Wait until all others are decided and it is parked; the reason."""
    letters = eventually(
        lambda: here.rows("SELECT payload->>'mobile' AS mobile, reason FROM dead_letter"),
        "the dead letter",
        seconds=100,
    )
    rows = here.check_settled(len(numbers) - 1, seconds=60)
    assert {str(row["msisdn"]) for row in rows} == set(numbers) - {poison}
    assert [letter["mobile"] for letter in letters] == [poison]
    eventually(lambda: not here.messages_left(), "empty queues")
    return str(letters[0]["reason"])


@pytest.mark.timeout(300)
def test_an_item_that_kills_its_worker_is_parked_with_its_history(here: Place) -> None:
    _kill_six_times(here, "before", many=False)


@pytest.mark.timeout(300)
def test_an_item_of_a_long_message_that_kills_after_its_call_costs_no_more_than_said(
    on_rabbitmq: Place,
) -> None:
    _kill_six_times(on_rabbitmq, "after", many=True)


def _kill_six_times(here: Place, how: str, *, many: bool) -> None:
    here.settings["provider_timeout_seconds"] = "1,1.5"
    numbers = plain_numbers(NUMBERS)
    poison = numbers[617]
    _send(here, numbers, many=many)
    here.upkeep()
    worker = _poisoned(here, how, poison)

    reason = _only_one_is_given_up(here, numbers, poison)
    assert reason.startswith("4 times the worker died while this ran, at last with nothing else running")
    assert worker.log.count('"process_died"') <= MOST_DEATHS
    # each second bill was in a call that a kill left open, and is listed
    lost = here.rows("SELECT unnest(unanswered) AS msisdn FROM lookup_call WHERE outcome = 'lost'")
    listed = Counter(str(row["msisdn"]) for row in lost)
    bills = here.sandbox.bills()
    assert all(times <= 1 + listed[number] for number, times in bills.items())
    assert listed.total() <= MOST_LISTED
    assert bills.get(poison, 0) <= MOST_DEATHS

    worker.stop()
    here.worker("sms")  # mended
    replay = [sys.executable, "-m", "worker.cli", "dead", "replay", "--all"]
    assert here.run("replay", replay).ended() == 0
    here.check_settled(NUMBERS)
    here.stop()


@pytest.mark.parametrize(("how", "most_bills"), [("raises", 1), ("client", 3)])
def test_an_item_its_worker_always_fails_on_is_parked_without_any_death(
    here: Place, how: str, most_bills: int
) -> None:
    """What was paid for before a defect is kept; a call it ended may be repeated twice for a number."""
    numbers = plain_numbers(NUMBERS)
    poison = numbers[617]
    _send(here, numbers, many=False)
    here.upkeep()
    worker = _poisoned(here, how, poison)

    reason = _only_one_is_given_up(here, numbers, poison)
    if how == "raises":
        assert "at last with nothing else in it (ValueError in tests/acceptance/poisoned.py, line" in reason
    assert '"process_died"' not in worker.log
    assert max(here.sandbox.bills().values()) <= most_bills
    here.stop()
