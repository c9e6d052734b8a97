"""The demo's day: the same for the same seed, with the shares it states, and as bad as it says."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from worker.demo import failures, population, traffic
from worker.demo.traffic import Day, Message, day
from worker.intake import Intake
from worker.portability.failure_codes import FailureCodes
from worker.portability.records import Status
from worker.portability.requests import CheckRequest, Lane, RequestKey
from worker.queues import TASKS
from worker.sandbox.subscribers import PORTED_PER_10000, subscriber

ITEMS = 8000


@pytest.fixture(scope="module")
def made() -> Day:
    return day(7, ITEMS)


def items(made: Day, lane: Lane) -> list[dict[str, Any]]:
    return [
        dict(item)
        for message in made.messages
        if TASKS[message.task].lane is lane and not message.bad
        for item in message.items
    ]


def named(item: dict[str, Any]) -> bool:
    """Whether it is one of the day's ordinary requests, not of a story told besides."""
    return (item.get("order_id") or item["message_id"]).startswith(("order-", "sms-"))


def test_the_same_seed_makes_the_same_day() -> None:
    assert day(7, 1000) == day(7, 1000)
    assert day(7, 1000).messages != day(8, 1000).messages


def test_a_day_holds_about_the_items_asked_for_in_the_order_of_their_times(made: Day) -> None:
    assert made.items == pytest.approx(ITEMS * 1.01, abs=40)
    moments = [message.at for message in made.messages]
    assert moments == sorted(moments)
    assert 0 <= moments[0] < moments[-1] <= 1


def test_four_in_five_come_before_a_recharge(made: Day) -> None:
    recharges, rechecks = len(items(made, Lane.RECHARGE)), len(items(made, Lane.SMS))
    assert recharges / (recharges + rechecks) == pytest.approx(traffic.RECHARGE_SHARE, abs=0.01)


@pytest.mark.parametrize(
    ("task", "lane", "share"),
    [
        ("recharge.precheck_many", Lane.RECHARGE, traffic.RECHARGES_IN_BULK),
        ("sms.recheck_many", Lane.SMS, traffic.SMS_IN_BULK),
    ],
)
def test_bulk_has_its_share(made: Day, task: str, lane: Lane, share: float) -> None:
    in_bulk = sum(len(message.items) for message in made.messages if message.task == task)
    assert in_bulk / len(items(made, lane)) == pytest.approx(share, abs=0.02)
    assert all(len(message.items) <= 1000 for message in made.messages)


def test_numbers_come_again_and_the_busiest_most_often(made: Day) -> None:
    for lane, most_distinct in ((Lane.RECHARGE, 0.8), (Lane.SMS, 0.85)):
        times = Counter(item["mobile"] for item in items(made, lane))
        assert len(times) / times.total() < most_distinct
        assert times.most_common(1)[0][1] > 5


def test_callers_name_the_operator_of_the_range_which_some_numbers_have_left(made: Day) -> None:
    asked = [item for item in items(made, Lane.RECHARGE) if named(item) and "operator" in item]
    answers = {item["mobile"]: subscriber(item["mobile"]) for item in asked}
    assert all(item["operator"] == (answers[item["mobile"]].range_holder or "CMCC") for item in asked)
    ported = sum(answer.status is Status.PORTED for answer in answers.values())
    assert ported / len(answers) == pytest.approx(PORTED_PER_10000 / 10_000, abs=0.012)


def test_bad_numbers_have_their_share(made: Day) -> None:
    asked = items(made, Lane.RECHARGE)
    bad = sum(subscriber(item["mobile"]).status is Status.INVALID for item in asked)
    assert bad / len(asked) == pytest.approx(traffic.BAD_NUMBERS, abs=0.006)


def test_failures_have_their_shares_by_the_shipped_table(made: Day) -> None:
    table = FailureCodes.shipped()
    failed = [item for item in items(made, Lane.SMS) if item["message_id"].startswith("sms-")]
    classes = Counter(table.classify(item["failure_code"], item["operator"]) for item in failed)
    assert sum(failures.SHARES.values()) == 100
    for failure_class, share in failures.SHARES.items():
        assert classes[failure_class] / len(failed) == pytest.approx(share / 100, abs=0.035), failure_class


def test_exactly_the_items_said_to_be_bad_are_rejected(made: Day) -> None:
    first_of_key: dict[RequestKey, CheckRequest] = {}
    for message in (*made.opening, *made.messages):
        reasons = [_reason(message, item, first_of_key) for item in message.items]
        expected = [None] * (len(reasons) - message.bad) + ["rejected"] * message.bad
        assert [reason and "rejected" for reason in reasons] == expected, (message, reasons)
    assert made.bad == sum(message.bad for message in made.messages) >= 9


def _reason(message: Message, item: Any, first_of_key: dict[RequestKey, CheckRequest]) -> str | None:
    """Why presend's own rules reject an item; None where they take it."""
    taken = Intake(TASKS[message.task].lane).take_one(item, now=datetime.now(UTC))
    if taken.request is None:
        return taken.reason
    first = first_of_key.setdefault(taken.request.key, taken.request)
    return None if first.same_question(taken.request.msisdn, taken.request.operator) else "a conflict"


def test_some_keys_come_twice_with_the_same_question(made: Day) -> None:
    keys = Counter(
        (message.task, message.arguments.get("order_id") or message.arguments.get("message_id"))
        for message in made.messages
        if "items" not in message.arguments and not message.bad and named(dict(message.arguments))
    )
    twice = sum(times == 2 for times in keys.values())
    assert twice / len(keys) == pytest.approx(traffic.REPEATED_KEYS, rel=0.5)


def test_a_number_moves_between_the_requests_that_name_it(made: Day) -> None:
    port = made.port
    assert subscriber(port.msisdn).current_operator == port.donor != port.recipient
    story = [
        message
        for message in made.messages
        if str(message.arguments.get("order_id") or message.arguments.get("message_id")).startswith("port-")
    ]
    assert [message.at < port.at for message in story] == [True, False, False]
    assert [message.task for message in story] == [
        "recharge.precheck",
        "sms.recheck",
        "recharge.precheck",
    ]
    assert {message.arguments["mobile"] for message in story} == {port.msisdn}
    assert {message.arguments["operator"] for message in story} == {port.donor}


def test_the_opening_asks_for_the_documents_numbers_in_both_lanes(made: Day) -> None:
    asked = [message.arguments["mobile"] for message in made.opening if message.task == "recharge.precheck"]
    assert tuple(asked) == population.DOCUMENT_NUMBERS
    assert {TASKS[message.task].lane for message in made.opening} == {Lane.RECHARGE, Lane.SMS}
    assert all(message.watched for message in made.opening)


def test_only_single_prechecks_are_waited_for(made: Day) -> None:
    watched = [message for message in made.messages if message.watched]
    assert {message.task for message in watched} == {"recharge.precheck"}
    singles = sum(message.task == "recharge.precheck" for message in made.messages)
    assert len(watched) / singles == pytest.approx(traffic.WATCHED, abs=0.02)
    assert not any(message.bad for message in watched)
