"""The rules of one installation: the tables with the user's settings, asked for one request at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from worker.portability.changes import finding_of
from worker.portability.decision import Decision, answered_by_rule, decide
from worker.portability.failure_codes import FailureClass, FailureCodes
from worker.portability.freshness import Freshness, Objection
from worker.portability.records import Finding, NoAnswer, PortRecord
from worker.portability.requests import CheckRequest, Lane

_CASES_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Rules:
    """What every decision rests on."""

    freshness: Freshness
    failure_codes: FailureCodes
    # failure classes of an sms that are decided without asking
    not_asked: frozenset[FailureClass]
    # an sms past this attempt is given up
    max_attempts: int
    # what was decided before, by all that a decision looks at: a batch has few different cases
    _decided: dict[tuple[object, ...], Decision] = field(default_factory=dict, compare=False, repr=False)

    def failure_class(self, request: CheckRequest) -> FailureClass | None:
        """The class of an sms's failure; None in the other lanes."""
        if request.lane is not Lane.SMS:
            return None
        return self.failure_codes.classify(request.failure_code, request.operator)

    def finding(
        self,
        request: CheckRequest,
        record: PortRecord | None,
        *,
        now: datetime,
        shares_from: datetime | None = None,
    ) -> Finding | NoAnswer | None:
        """What decides a request without asking: expiry, a rule, or the stored record; None: ask.

        What another request bought since this one came is live to it, so a record observed or answered since
        ``received_at`` answers; ``shares_from`` moves that moment back to a call it waited for.
        """
        if request.expires_at is not None and request.expires_at <= now:
            return NoAnswer.EXPIRED
        failure_class = self.failure_class(request)
        by_rule = answered_by_rule(request, failure_class=failure_class, not_asked=self.not_asked)
        if by_rule is not None or record is None:
            return by_rule
        answered_from = self.freshness.answered_from(
            request,
            record,
            failure_class=failure_class,
            now=now,
            shares_from=shares_from or request.received_at,
        )
        return None if answered_from is None else finding_of(record, answered_from)

    def objection(
        self, request: CheckRequest, record: PortRecord | None, *, now: datetime
    ) -> Objection | None:
        """Why the provider has to be asked although this record is stored; None: the record answers."""
        return self.freshness.objection(request, record, failure_class=self.failure_class(request), now=now)

    def decide(self, request: CheckRequest, finding: Finding | NoAnswer) -> Decision:
        """The decision table's word on a request."""
        case = (
            request.lane,
            request.operator,
            request.attempt,
            request.failure_code,
            *((finding,) if isinstance(finding, NoAnswer) else (finding.status, finding.current_operator)),
        )
        decided = self._decided.get(case)
        if decided is None:
            if len(self._decided) >= _CASES_KEPT:  # a failure code may be any text
                self._decided.clear()
            decided = self._decided[case] = decide(
                request,
                finding,
                failure_class=self.failure_class(request),
                not_asked=self.not_asked,
                max_attempts=self.max_attempts,
            )
        return decided
