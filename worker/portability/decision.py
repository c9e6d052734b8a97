"""The decision table: what becomes of a request, given what was found of its number.

``_RECHARGE`` and ``_SMS`` are the table; they are read top to bottom, and the first row that fits decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from worker.portability.failure_codes import FailureClass
from worker.portability.records import AnsweredFrom, Finding, NoAnswer, Status
from worker.portability.requests import CheckRequest, Lane


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What is said of a request."""

    # the event type's last word: confirmed, reroute, rejected, unverified, resend, undeliverable
    decision: str
    # why, in one word of the interface
    reason: str
    # where a reroute leads; None for any other decision, and where no operator fits
    target_operator: str | None = None


class _Case(NamedTuple):
    """What the rows look at."""

    lane: Lane
    # code of the operator that was asked about
    operator: str | None
    attempts_used_up: bool
    failure_class: FailureClass | None
    status: Status | None
    current_operator: str | None


class _Row(NamedTuple):
    """One row of the table."""

    fits: Callable[[_Case], bool]
    decision: Decision
    leads_to_current_operator: bool = False


def _invalid(case: _Case) -> bool:
    return case.status is Status.INVALID


def _unknown(case: _Case) -> bool:
    """Not found, or found without an operator to compare (a virtual number needs none for a recharge)."""
    if case.current_operator is not None:
        return case.status is Status.UNKNOWN
    return not (case.lane is Lane.RECHARGE and _virtual(case))


def _virtual(case: _Case) -> bool:
    return case.status is Status.VIRTUAL


def _attempts_used_up(case: _Case) -> bool:
    return case.attempts_used_up


def _no_operator_named(case: _Case) -> bool:
    return case.operator is None


def _same_operator(case: _Case) -> bool:
    return case.current_operator == case.operator


def _same_operator_for_good(case: _Case) -> bool:
    return _same_operator(case) and case.failure_class is not None and case.failure_class.permanent


def _other_operator(case: _Case) -> bool:
    return case.current_operator != case.operator


_RECHARGE = (
    _Row(_invalid, Decision("rejected", "invalid_number")),
    _Row(_unknown, Decision("unverified", "unknown_number")),
    _Row(_virtual, Decision("reroute", "virtual")),
    _Row(_no_operator_named, Decision("confirmed", "no_product_operator")),
    _Row(_same_operator, Decision("confirmed", "same_operator")),
    _Row(_other_operator, Decision("reroute", "other_operator"), leads_to_current_operator=True),
)
_SMS = (
    _Row(_invalid, Decision("undeliverable", "invalid_number")),
    _Row(_unknown, Decision("undeliverable", "unknown_number")),
    _Row(_attempts_used_up, Decision("undeliverable", "attempts_used_up")),
    _Row(_other_operator, Decision("reroute", "other_operator"), leads_to_current_operator=True),
    _Row(_same_operator_for_good, Decision("undeliverable", "permanent_failure")),
    _Row(_same_operator, Decision("resend", "same_operator")),
)
_ROWS = {Lane.RECHARGE: _RECHARGE, Lane.SMS: _SMS}

# sms row 1: nothing is asked, the failure's class alone decides
_BY_CLASS = {
    each: Decision("undeliverable" if each.permanent else "resend", each.value) for each in FailureClass
}
# no answer: an sms waits for one, unless its producer set an expiry
_WITHOUT_ANSWER = {
    **{(Lane.RECHARGE, each): Decision("unverified", each.value) for each in NoAnswer},
    **{(Lane.DIRECT, each): Decision("unanswered", each.value) for each in NoAnswer},
    (Lane.SMS, NoAnswer.EXPIRED): Decision("undeliverable", NoAnswer.EXPIRED.value),
}
DECISIONS: dict[Lane, frozenset[str]] = {
    lane: frozenset(
        [row.decision.decision for row in rows]
        + [decided.decision for (its, _), decided in _WITHOUT_ANSWER.items() if its is lane]
    )
    for lane, rows in _ROWS.items()
}
"""Every decision a lane of the queue can come to: the last words of its event types."""

# direct callers get the answer itself; these words are for the ledger
_ANSWERED = {each: Decision("answered", each.value) for each in Status}


def decide(
    request: CheckRequest,
    finding: Finding | NoAnswer,
    *,
    failure_class: FailureClass | None,
    not_asked: frozenset[FailureClass],
    max_attempts: int,
) -> Decision:
    """The first row that fits.

    An expired sms is undeliverable before all rows: nothing is sent late. Raises ValueError for a finding
    that cannot come about: an sms without an answer that has not expired, a direct answer without a status.
    """
    lane = request.lane
    if isinstance(finding, NoAnswer):
        decided = _WITHOUT_ANSWER.get((lane, finding))
        if decided is None:
            raise ValueError(f"an sms waits for its answer: it is never decided {finding}")
        return decided
    if lane is Lane.DIRECT:
        if finding.status is None:
            raise ValueError("a direct request is answered with a status")
        return _ANSWERED[finding.status]
    if lane is Lane.SMS and failure_class is not None and failure_class in not_asked:
        return _BY_CLASS[failure_class]
    return _first_that_fits(
        _Case(
            lane,
            request.operator,
            request.attempt > max_attempts,
            failure_class,
            finding.status,
            finding.current_operator,
        )
    )


def answered_by_rule(
    request: CheckRequest, *, failure_class: FailureClass | None, not_asked: frozenset[FailureClass]
) -> Finding | None:
    """What needs no asking: an sms failure that porting cannot explain, digits that are no mobile number."""
    if request.lane is Lane.SMS and failure_class is not None and failure_class in not_asked:
        return _NOTHING_ASKED
    return _NO_MOBILE_NUMBER if request.msisdn is None else None


_NOTHING_ASKED = Finding(answered_from=AnsweredFrom.RULE)
_NO_MOBILE_NUMBER = Finding(status=Status.INVALID, answered_from=AnsweredFrom.RULE)


def _first_that_fits(case: _Case) -> Decision:
    for row in _ROWS[case.lane]:
        if row.fits(case):
            decided = row.decision
            if row.leads_to_current_operator:
                return Decision(decided.decision, decided.reason, case.current_operator)
            return decided
    raise AssertionError("the last two rows of each lane cover every case")
