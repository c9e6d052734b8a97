"""When a stored record may answer, so that nothing is bought.

6.53 % of all users had ported by 2023-01, after 1 % in 2020-12 (the provider's document): 7.4e-5 a
day. A record one day old is wrong less often than the provider's own 99.99 % allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from worker.portability.failure_codes import FailureClass
from worker.portability.records import AnsweredFrom, PortRecord, Status
from worker.portability.requests import CheckRequest, Lane


class Objection(StrEnum):
    """Why a stored record does not answer a request: the provider is asked."""

    NO_RECORD = "no_record"
    UNKNOWN = "unknown"
    """The last answer was: unknown."""
    LIVE_WANTED = "live_wanted"
    """A direct caller accepts no answer of this age."""
    ANOTHER_ATTEMPT = "another_attempt"
    """A later attempt of the same request: a stored answer is not taken."""
    SAID_TO_HAVE_MOVED = "said_to_have_moved"
    """The failure code says so, and the record names no other operator."""
    CHANNEL_FAILED = "channel_failed"
    """The record names the very channel that failed since it was observed."""
    OLD = "old"


@dataclass(frozen=True, slots=True)
class Freshness:
    """The rules by which a stored record answers a request."""

    # age in seconds from which a record no longer answers, by lane; direct callers state their own
    max_age_seconds: Mapping[Lane, float]

    def answered_from(
        self,
        request: CheckRequest,
        record: PortRecord | None,
        *,
        failure_class: FailureClass | None,
        now: datetime,
        shares_from: datetime | None = None,
    ) -> AnsweredFrom | None:
        """STORED or SHARED where the record answers, None where the provider must be asked.

        ``shares_from`` is the sent_at of another request's call that this one waited for: what it or a
        later call learned answers whatever it is, for it was bought for everyone who waited. So does an
        answer that came after the request did, though nothing looked in time to wait for its call.
        """
        if record is not None and _bought_for_all(request, record, shares_from):
            return AnsweredFrom.SHARED
        objection = self.objection(request, record, failure_class=failure_class, now=now)
        return AnsweredFrom.STORED if objection is None else None

    def answers_since(self, request: CheckRequest, *, now: datetime) -> datetime:
        """A record that was observed before then is too old for the request, unless its answer came since."""
        direct = request.lane is Lane.DIRECT
        accepted = (request.max_age_seconds or 0) if direct else self.max_age_seconds[request.lane]
        return min(request.received_at, now - timedelta(seconds=accepted))

    def objection(
        self,
        request: CheckRequest,
        record: PortRecord | None,
        *,
        failure_class: FailureClass | None,
        now: datetime,
    ) -> Objection | None:
        """Why the record does not answer; None: it does."""
        if record is None:
            return Objection.NO_RECORD
        if record.status is Status.UNKNOWN:
            return Objection.UNKNOWN
        if request.lane is Lane.DIRECT:
            accepted = request.max_age_seconds
            fresh = accepted is not None and _age_seconds(record, now) <= accepted
            return None if fresh else Objection.LIVE_WANTED
        against = _speaks_against(request, record, failure_class)
        if against is not None:
            return against
        return None if _age_seconds(record, now) < self.max_age_seconds[request.lane] else Objection.OLD


def _bought_for_all(request: CheckRequest, record: PortRecord, shares_from: datetime | None) -> bool:
    """Whether the record was bought while the request waited for its number, or could have."""
    if shares_from is not None and record.observed_at >= shares_from:
        return True
    return record.answered_at is not None and record.answered_at >= request.received_at


def _speaks_against(
    request: CheckRequest, record: PortRecord, failure_class: FailureClass | None
) -> Objection | None:
    """What happened since that is evidence against the record, however young it is."""
    if request.lane is Lane.RECHARGE:
        return Objection.ANOTHER_ATTEMPT if request.attempt > 1 else None
    named = None if record.status is Status.INVALID else record.current_operator
    if failure_class is FailureClass.PORTED:
        return Objection.SAID_TO_HAVE_MOVED if named is None or named == request.operator else None
    failed_since = named == request.operator and record.observed_at <= _failure_moment(request)
    return Objection.CHANNEL_FAILED if failed_since else None


def _failure_moment(request: CheckRequest) -> datetime:
    """When the SMS failed: at the latest when its report arrived, for a producer's clock may run ahead."""
    failed_at = request.failed_at
    return request.received_at if failed_at is None else min(failed_at, request.received_at)


def _age_seconds(record: PortRecord, now: datetime) -> float:
    """The record's age; one from the future (another host's clock) counts as new."""
    return max((now - record.observed_at).total_seconds(), 0.0)
