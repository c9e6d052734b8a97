"""Intake: what the four tasks' arguments become, and why they are rejected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.errors import Rejected
from worker.intake import Intake
from worker.portability.requests import CheckRequest, Lane

NOW = datetime(2026, 11, 24, 1, 30, tzinfo=UTC)
RECHARGE = Intake(Lane.RECHARGE, expiry=timedelta(seconds=5))
SMS = Intake(Lane.SMS)
GOOD = {
    Lane.RECHARGE: {"order_id": "o-1", "mobile": "13972565391"},
    Lane.SMS: {"message_id": "m-1", "mobile": "13972565391", "operator": "移动"},
}


def take(intake: Intake, **arguments: Any) -> CheckRequest:
    taken = intake.take_one(GOOD[intake.lane] | arguments, now=NOW)
    assert taken.reason is None, taken.reason
    assert taken.request is not None
    return taken.request


def refuse(intake: Intake, **arguments: Any) -> str:
    taken = intake.take_one(GOOD[intake.lane] | arguments, now=NOW)
    assert taken.request is None
    assert taken.reason is not None
    return taken.reason


def test_a_precheck() -> None:
    request = take(
        RECHARGE, mobile="+86 139-7256-5391", operator="中国移动", attempt=2, source="shop", x_trace="any"
    )
    assert request == CheckRequest(
        Lane.RECHARGE,
        "o-1",
        "13972565391",
        NOW,
        attempt=2,
        source="shop",
        operator="CMCC",
        expires_at=NOW + timedelta(seconds=5),
    )


def test_a_recheck() -> None:
    request = take(SMS, operator="cucc", failure_code="MK:0001", failed_at="2026-11-24T09:00:00")
    assert (request.operator, request.failure_code) == ("CUCC", "MK:0001")
    assert request.failed_at == datetime(2026, 11, 24, 1, 0, tzinfo=UTC), "no offset means Shanghai"
    ahead = take(SMS, failed_at="2026-11-24T09:35:00")
    assert ahead.failed_at == NOW + timedelta(minutes=5), "so far a clock may be ahead"
    assert request.expires_at is None, "an sms expires only by its own expires"


@pytest.mark.parametrize(
    ("intake", "arguments", "says"),
    [
        (RECHARGE, {"order_id": "a b"}, "order_id must be"),
        (RECHARGE, {"order_id": ""}, "order_id must be"),
        (RECHARGE, {"order_id": "é"}, "order_id must be"),
        (RECHARGE, {"order_id": "x" * 129}, "order_id must be"),
        (RECHARGE, {"order_id": "line\n"}, "order_id must be"),
        (RECHARGE, {"order_id": 7}, "A-Z a-z 0-9 . _ : -, not a number"),
        (RECHARGE, {"mobile": 13972565391}, "not a string but a number: send its digits in quotes"),
        (RECHARGE, {"mobile": ["13972565391"]}, "not a string but a list: send one number"),
        (RECHARGE, {"mobile": ""}, "mobile"),
        (RECHARGE, {"mobile": "139x2565391"}, "mobile"),
        (RECHARGE, {"attempt": 0}, "attempt must be"),
        (RECHARGE, {"attempt": True}, "not true or false: send 2"),
        (RECHARGE, {"attempt": "2"}, "not a string: send 2 for the second try, without quotes"),
        (RECHARGE, {"attempt": 1.5}, "not one with a decimal point: send 2"),
        (RECHARGE, {"operator": "Vodafone"}, "operator"),
        (RECHARGE, {"failure_code": "MK:0001"}, "unknown argument 'failure_code'"),
        (RECHARGE, {"source": "a\x00"}, "source must be"),
        (SMS, {"operator": None}, "operator"),
        (SMS, {"failed_at": "yesterday"}, "failed_at must be an RFC 3339"),
        (SMS, {"failed_at": 1795509832}, "09:30:00+08:00, not a number"),
        (SMS, {"failed_at": "2026-11-24T09:35:01"}, "later than its receipt: check the producer's clock"),
        (SMS, {"failed_at": "9999-12-31T23:59:59-23:59"}, "later than its receipt"),
        (SMS, {"failure_code": 54}, "failure_code must be"),
        (SMS, {"failure_code": "MK\n1"}, "failure_code must be"),
    ],
)
def test_a_bad_argument_is_named(intake: Intake, arguments: dict[str, Any], says: str) -> None:
    assert says in refuse(intake, **arguments)


@pytest.mark.parametrize("name", ["message_id", "mobile", "operator"])
def test_a_missing_argument_is_named(name: str) -> None:
    arguments = {key: value for key, value in GOOD[Lane.SMS].items() if key != name}
    reason = f"argument {name} is missing: sms needs message_id, mobile, operator"
    assert SMS.take_one(arguments, now=NOW).reason == reason


def test_digits_that_cannot_be_a_mobile_number_are_a_request_without_one() -> None:
    assert take(RECHARGE, mobile="1234").msisdn is None


def test_the_earlier_expiry_counts() -> None:
    soon = NOW + timedelta(seconds=1)
    assert RECHARGE.take_one(GOOD[Lane.RECHARGE], now=NOW, expires=soon).request.expires_at == soon  # type: ignore[union-attr]


def test_a_bad_item_leaves_its_neighbours() -> None:
    taken = SMS.take_many({"items": [GOOD[Lane.SMS], "no object", {}, GOOD[Lane.SMS]]}, now=NOW)
    assert [item.request is not None for item in taken] == [True, False, False, True]
    assert [item.reason is None for item in taken] == [True, False, False, True]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"items": "x"}, {"items": None}, {"items": [{}] * 1001}, {"items": [], "more": 1}],
)
def test_a_many_that_is_none_is_one_rejection(arguments: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        SMS.take_many(arguments, now=NOW)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["order_id", "mobile", "operator", "attempt", "source", "x_"]) | st.text(max_size=5)


@given(arguments=st.dictionaries(names, json_values))
def test_whatever_comes_is_taken_or_rejected_with_a_short_printable_reason(arguments: dict[str, Any]) -> None:
    taken = RECHARGE.take_one(arguments, now=NOW)
    assert (taken.request is None) != (taken.reason is None)
    if taken.reason is not None:
        assert taken.reason.isprintable()
        assert len(taken.reason) < 300


_VALUES = {
    "message_id": ["m-1", "m-2", "m:3", "", "a b", "a\nb", "é", "m\n", "x" * 129, 7, None],
    "mobile": [
        "13972565391",
        "13800000000",
        "+8613800000001",
        "138-0000 0002",
        "12345",
        "",
        "x",
        "\n",
        1,
        None,
    ],
    "operator": ["CMCC", "移动", " cucc", "", "orange", 1, None],
    "attempt": [1, 2, 0, 1.0, True, "1", None],
    "source": ["", "shop", "a b", None],
    "failure_code": ["MK:0001", "", None, "\n", "x" * 65, 3, False],
    "failed_at": ["2026-11-24T09:00:00", "2026-11-24T12:00:00", "soon", "", None, 1764000000],
    "x_trace": ["", [], 1],
    "unknown": ["", 1],
}
_TAKEN = {name: values[:2] for name, values in _VALUES.items() if name not in {"x_trace", "unknown"}}


@st.composite
def items_of_one_kind(draw: st.DrawFn) -> list[Any]:
    """Items with the same arguments, in the same order; mostly good ones, so that what is alike is found."""
    values = draw(st.sampled_from([_TAKEN, _TAKEN, _VALUES]))
    names = draw(st.permutations(["message_id", "mobile", "operator"]))
    names += draw(st.lists(st.sampled_from([*values.keys() - names]), unique=True))
    names = names[draw(st.sampled_from([0, 0, 0, 1])) :]
    one = st.fixed_dictionaries({name: st.sampled_from(values[name]) for name in names})
    odd = st.sampled_from([None, "no object", {}, {"mobile": "13972565391"}])
    return draw(st.lists(one, min_size=1, max_size=4)) + draw(
        st.lists(odd, max_size=draw(st.sampled_from([0, 1])))
    )


@given(items=items_of_one_kind())
@example(items=[GOOD[Lane.SMS] | {"attempt": 1}, GOOD[Lane.SMS] | {"attempt": True}])
@example(items=[GOOD[Lane.SMS] | {"message_id": "two\nlines"}])
@example(items=[GOOD[Lane.SMS] | {"mobile": "13972565391\n13972565391"}])
def test_many_items_are_read_as_each_would_be_alone(items: list[Any]) -> None:
    alone = [taken for item in items for taken in SMS.take_many({"items": [item, None]}, now=NOW)[:1]]
    assert SMS.take_many({"items": items}, now=NOW) == alone
