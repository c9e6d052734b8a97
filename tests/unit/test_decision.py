"""The decision table, against a copy typed by hand from the specification."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.portability.decision import Decision, answered_by_rule, decide
from worker.portability.failure_codes import NOT_ASKED, FailureClass
from worker.portability.records import AnsweredFrom, Finding, NoAnswer, Status
from worker.portability.requests import CheckRequest, Lane

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
MAX_ATTEMPTS = 3

# lane | what must be true | event | reason | target; the first row whose facts all hold
TABLE = [
    ("sms", {"expired"}, "undeliverable", "expired", None),
    ("sms", {"not asked", "refused"}, "undeliverable", "refused", None),
    ("sms", {"not asked", "throttled"}, "resend", "throttled", None),
    ("recharge", {"invalid"}, "rejected", "invalid_number", None),
    ("sms", {"invalid"}, "undeliverable", "invalid_number", None),
    ("recharge", {"unknown"}, "unverified", "unknown_number", None),
    ("sms", {"unknown"}, "undeliverable", "unknown_number", None),
    ("recharge", {"expired"}, "unverified", "expired", None),
    ("recharge", {"gate_closed"}, "unverified", "gate_closed", None),
    ("recharge", {"budget_spent"}, "unverified", "budget_spent", None),
    ("recharge", {"provider_failing"}, "unverified", "provider_failing", None),
    ("recharge", {"virtual"}, "reroute", "virtual", None),
    ("sms", {"attempt 4"}, "undeliverable", "attempts_used_up", None),
    ("recharge", {"asked nobody"}, "confirmed", "no_product_operator", None),
    ("recharge", {"asked CMCC", "now CMCC"}, "confirmed", "same_operator", None),
    ("recharge", {"asked CMCC", "now CTCC"}, "reroute", "other_operator", "CTCC"),
    ("recharge", {"asked CMCC", "now 卫星"}, "reroute", "other_operator", "卫星"),
    ("sms", {"asked CMCC", "now CTCC"}, "reroute", "other_operator", "CTCC"),
    ("sms", {"asked CMCC", "now 卫星"}, "reroute", "other_operator", "卫星"),
    ("sms", {"absent_subscriber"}, "undeliverable", "permanent_failure", None),
    ("sms", {"barred"}, "undeliverable", "permanent_failure", None),
    ("sms", {"refused"}, "undeliverable", "permanent_failure", None),
    ("sms", set(), "resend", "same_operator", None),
]

FINDINGS = [
    *(Finding(status, None, now) for status, now in product(Status, ["CMCC", "CTCC", "卫星"])),
    *NoAnswer,
]
CLASSES = [None, *FailureClass]


def facts(
    request: CheckRequest, finding: Finding | NoAnswer, failure_class: FailureClass | None, not_asked: bool
) -> set[str]:
    held = {f"attempt {request.attempt}", f"asked {request.operator or 'nobody'}", str(failure_class)}
    if not_asked:
        held.add("not asked")
    if isinstance(finding, NoAnswer):
        return held | {str(finding)}
    return held | {str(finding.status), f"now {finding.current_operator}"}


def test_the_first_row_that_fits_decides_every_case() -> None:
    cases = product(
        [Lane.RECHARGE, Lane.SMS], [1, 3, 4], ["CMCC", None], FINDINGS, CLASSES, [NOT_ASKED, frozenset()]
    )
    for lane, attempt, operator, finding, failure_class, not_asked in cases:
        if lane is Lane.SMS and (operator is None or finding in set(NoAnswer) - {NoAnswer.EXPIRED}):
            continue  # an sms names its channel, and waits for its answer
        asked = request(lane, attempt=attempt, operator=operator)
        held = facts(asked, finding, failure_class, failure_class in not_asked)
        expected = next(
            Decision(decision, reason, target)
            for row_lane, needed, decision, reason, target in TABLE
            if row_lane == lane and needed <= held
        )
        decision = decide(
            asked, finding, failure_class=failure_class, not_asked=not_asked, max_attempts=MAX_ATTEMPTS
        )
        assert decision == expected, held


def request(lane: Lane, **fields: object) -> CheckRequest:
    return CheckRequest(lane, "r-1", **{"msisdn": "13812345678", "received_at": NOW, **fields})  # type: ignore[arg-type]


def decided(
    asked: CheckRequest, finding: Finding | NoAnswer, failure_class: FailureClass | None = None
) -> Decision:
    return decide(asked, finding, failure_class=failure_class, not_asked=NOT_ASKED, max_attempts=3)


@pytest.mark.parametrize("finding", [each for each in NoAnswer if each is not NoAnswer.EXPIRED])
def test_an_sms_is_never_decided_without_answer_unless_expired(finding: NoAnswer) -> None:
    with pytest.raises(ValueError, match=finding.value):
        decided(request(Lane.SMS, operator="CMCC"), finding)


def test_an_expired_sms_is_not_resent_whatever_its_failure() -> None:
    asked = request(Lane.SMS, operator="CMCC")
    assert decided(asked, NoAnswer.EXPIRED, FailureClass.THROTTLED) == Decision("undeliverable", "expired")


def test_an_answer_without_operator_sends_nobody_anywhere() -> None:
    nameless = Finding(status=Status.VIRTUAL)
    assert decided(request(Lane.RECHARGE, operator="CMCC"), nameless) == Decision("reroute", "virtual")
    assert decided(request(Lane.SMS, operator="CMCC"), nameless) == Decision(
        "undeliverable", "unknown_number"
    )
    assert decided(request(Lane.RECHARGE), Finding(status=Status.PORTED)) == Decision(
        "unverified", "unknown_number"
    )


@pytest.mark.parametrize("status", Status)
def test_direct_rows_say_the_status(status: Status) -> None:
    assert decided(request(Lane.DIRECT), Finding(status=status)) == Decision("answered", status.value)


@pytest.mark.parametrize("no_answer", NoAnswer)
def test_direct_rows_say_why_there_is_no_answer(no_answer: NoAnswer) -> None:
    assert decided(request(Lane.DIRECT), no_answer) == Decision("unanswered", no_answer.value)


@given(
    st.sampled_from(CLASSES),
    st.sampled_from(Lane),
    st.sampled_from(["13812345678", None]),
    st.sets(st.sampled_from(FailureClass)),
)
def test_what_needs_no_asking(failure_class, lane, msisdn, not_asked) -> None:
    asked = request(lane, msisdn=msisdn, operator="CMCC")
    finding = answered_by_rule(asked, failure_class=failure_class, not_asked=frozenset(not_asked))
    if lane == "sms" and failure_class in not_asked:
        assert finding == Finding(answered_from=AnsweredFrom.RULE)
        decision = decide(
            asked, finding, failure_class=failure_class, not_asked=frozenset(not_asked), max_attempts=3
        )
        assert decision.reason == failure_class
        assert decision.decision == ("undeliverable" if failure_class.permanent else "resend")
    elif msisdn is None:
        assert finding == Finding(status=Status.INVALID, answered_from=AnsweredFrom.RULE)
    else:
        assert finding is None
