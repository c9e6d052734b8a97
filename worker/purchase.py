"""A purchase: what the calls for a batch's numbers brought, and how each call ended."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from worker.carrier.protocol import Answer
from worker.errors import AccountFault
from worker.portability.records import AnsweredFrom, Finding, PortRecord
from worker.storage.calls import Call, EndedCall


class Bought(msgspec.Struct, frozen=True, gc=False):
    """An answer and the call that brought it."""

    answer: Answer
    call: Call

    def finding(self, *, live: bool) -> Finding:
        """What the answer says to a request: the one that bought it (``live``), or another that shares it."""
        return Finding(
            status=self.answer.status,
            range_holder=self.answer.range_holder,
            current_operator=self.answer.current_operator,
            area=self.answer.area,
            observed_at=self.call.sent_at,
            answered_from=AnsweredFrom.LIVE if live else AnsweredFrom.SHARED,
        )

    def record(self) -> PortRecord:
        """What the answer says to those who come later."""
        return PortRecord(
            msisdn=self.answer.msisdn,
            status=self.answer.status,
            range_holder=self.answer.range_holder,
            current_operator=self.answer.current_operator,
            area=self.answer.area,
            observed_at=self.call.sent_at,
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
