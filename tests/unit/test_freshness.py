"""When a stored record may answer, against the rules typed a second time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.portability.failure_codes import FailureClass
from worker.portability.freshness import Freshness
from worker.portability.records import AnsweredFrom, PortRecord, Status
from worker.portability.requests import CheckRequest, Lane

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
LIMIT = {Lane.RECHARGE: 600, Lane.SMS: 86400, Lane.DIRECT: 0}
FRESHNESS = Freshness(LIMIT)

# seconds ago, thick around every limit; negative is the future
ages = st.one_of(
    st.sampled_from([-5, 0, 1, 299, 300, 301, 599, 600, 601, 86399, 86400, 86401]), st.integers(-100, 200_000)
)


@dataclass(frozen=True)
class Case:
    """A request that meets a record; all times in seconds ago."""

    lane: Lane
    status: Status = Status.NOT_PORTED
    # operator asked for, operator on record
    asked: str | None = "CMCC"
    stored: str | None = "CMCC"
    observed: int = 60
    answered: int | None = None
    received: int = 0
    failed: int | None = None
    attempt: int = 1
    accepts: float | None = None
    shares: int | None = None
    failure: FailureClass | None = None

    def verdict(self) -> AnsweredFrom | None:
        request = CheckRequest(
            self.lane, "r-1", "13812345678", ago(self.received), attempt=self.attempt, operator=self.asked,
            failed_at=None if self.failed is None else ago(self.failed), max_age_seconds=self.accepts,
        )  # fmt: skip
        record = PortRecord(
            "13812345678", self.status, "CMCC", self.stored, None, ago(self.observed),
            answered_at=None if self.answered is None else ago(self.answered),
        )  # fmt: skip
        return FRESHNESS.answered_from(
            request,
            record,
            failure_class=self.failure,
            now=NOW,
            shares_from=None if self.shares is None else ago(self.shares),
        )


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


cases = st.builds(
    Case,
    lane=st.sampled_from(Lane),
    status=st.sampled_from(Status),
    asked=st.sampled_from(["CMCC", "CUCC"]),
    stored=st.sampled_from(["CMCC", "CUCC", None]),
    observed=ages,
    answered=st.none() | ages,
    received=st.integers(0, 3600),
    failed=st.none() | ages,
    attempt=st.integers(1, 3),
    accepts=st.none() | st.sampled_from([0, 300, 600]),
    shares=st.none() | ages,
    failure=st.none() | st.sampled_from(FailureClass),
)


def bought_for_all(case: Case) -> bool:
    waited = case.shares is not None and case.observed <= case.shares
    return waited or (case.answered is not None and case.answered <= case.received)


def by_the_book(case: Case) -> str:
    """DESIGN's rules as seconds ago: fewer is later."""
    age = max(case.observed, 0)
    failure_moment = case.received if case.failed is None else max(case.failed, case.received)
    names = None if case.status == "invalid" else case.stored
    rules = [
        (bought_for_all(case), "shared"),
        (case.status == "unknown", "ask"),
        (case.lane == "direct" and case.accepts is None, "ask"),
        (case.lane == "direct", "stored" if age <= (case.accepts or 0) else "ask"),
        (case.lane == "sms" and case.failure == "ported" and names in (None, case.asked), "ask"),
        (case.lane == "sms" and names == case.asked and case.observed >= failure_moment, "ask"),
        (case.lane == "recharge" and case.attempt > 1, "ask"),
        (age < LIMIT[case.lane], "stored"),
        (True, "ask"),
    ]
    return next(verdict for applies, verdict in rules if applies)


@settings(max_examples=2000)
@given(cases)
def test_the_rules_hold_for_every_case(case: Case) -> None:
    assert (case.verdict() or "ask") == by_the_book(case)


@given(cases)
@example(Case(Lane.RECHARGE, shares=60, status=Status.UNKNOWN))
def test_a_number_is_never_bought_twice_for_those_who_waited(case: Case) -> None:
    if bought_for_all(case):
        assert case.verdict() is AnsweredFrom.SHARED
    else:
        assert case.verdict() is not AnsweredFrom.SHARED


def test_nothing_stored_is_asked() -> None:
    request = CheckRequest(Lane.RECHARGE, "r-1", "13812345678", NOW)
    assert FRESHNESS.answered_from(request, None, failure_class=None, now=NOW, shares_from=NOW) is None


def test_the_rules_told_one_by_one() -> None:
    stored, ask = AnsweredFrom.STORED, None
    told = [
        (Case(Lane.RECHARGE, observed=599), stored),
        (Case(Lane.RECHARGE, observed=600), ask),
        (Case(Lane.RECHARGE, attempt=2), ask),
        (Case(Lane.RECHARGE, observed=-3600), stored),
        (Case(Lane.RECHARGE, status=Status.INVALID, stored=None), stored),
        (Case(Lane.DIRECT, observed=1), ask),
        (Case(Lane.DIRECT, observed=300, accepts=300), stored),
        # the record names the failed channel: observed before the failure, after it, at an unknown time
        (Case(Lane.SMS, observed=60, failed=30), ask),
        (Case(Lane.SMS, observed=60, failed=90, received=10), stored),
        (Case(Lane.SMS, observed=60, received=10), ask),
        # a producer's clock an hour ahead does not make the record newer than the failure
        (Case(Lane.SMS, observed=5, failed=-3600, received=10), stored),
        (Case(Lane.SMS, observed=86401, failed=90000), ask),
        # received while its number was in a call; just after
        (Case(Lane.SMS, observed=60, answered=59, received=59), AnsweredFrom.SHARED),
        (Case(Lane.SMS, observed=60, answered=59, received=58), ask),
        # it names another operator
        (Case(Lane.SMS, stored="CTCC", observed=86399, failed=1), stored),
        (Case(Lane.SMS, stored="CTCC", failure=FailureClass.PORTED), stored),
        (Case(Lane.SMS, observed=1, failed=90, failure=FailureClass.PORTED), ask),
        (Case(Lane.SMS, stored=None, failure=FailureClass.PORTED), ask),
        # an invalid number names no operator, though the record keeps the last one known
        (Case(Lane.SMS, status=Status.INVALID, observed=60, failed=30), stored),
        (Case(Lane.SMS, status=Status.INVALID, stored="CTCC", failure=FailureClass.PORTED), ask),
    ]
    assert [case.verdict() for case, _ in told] == [verdict for _, verdict in told]
