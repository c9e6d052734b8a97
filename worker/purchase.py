"""A purchase: what the calls for a batch's numbers brought, and how each call ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from worker.carrier.protocol import Answer
from worker.errors import AccountFault
from worker.portability.records import AnsweredFrom, Finding, PortRecord
from worker.storage.calls import Call, EndedCall


class Bought(msgspec.Struct, frozen=True, gc=False):
    """An answer, the call that brought it, and when."""

    answer: Answer
    call: Call
    answered_at: datetime

    def finding(self, *, live: bool) -> Finding:
        """What the answer says to a request: the one that bought it (``live``), or another that shares it."""
        answer = self.answer
        return Finding(  # by position, as below: named, its fields take several times as long
            answer.status,
            answer.range_holder,
            answer.current_operator,
            answer.area,
            self.call.sent_at,
            AnsweredFrom.LIVE if live else AnsweredFrom.SHARED,
        )

    def record(self) -> PortRecord:
        """What the answer says to those who come later."""
        answer = self.answer
        return PortRecord(
            answer.msisdn,
            answer.status,
            answer.range_holder,
            answer.current_operator,
            answer.area,
            self.call.sent_at,
            answered_at=self.answered_at,
        )


@dataclass(slots=True)
class Purchase:
    """What became of the numbers that were asked for."""

    # the call that claimed them
    call_id: str
    bought: dict[str, Bought] = field(default_factory=dict)
    # numbers without an answer -> whether they may have been billed all the same
    unanswered: dict[str, bool] = field(default_factory=dict)
    ended: list[EndedCall] = field(default_factory=list)
    account_fault: AccountFault | None = None
    # what of presend's own ended a call; its numbers may have been billed
    defect: Exception | None = None
    # whether a call failed for a passing reason that was not one number's alone
    lost: bool = False
    # single numbers refused while the account was well -> the code
    refused: dict[str, int | None] = field(default_factory=dict)
    # whether /balance was asked, and the account was well
    account_well: bool = False
