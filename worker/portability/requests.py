"""A check request: one number that one producer wants checked, and the key it is known by."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec


class Lane(StrEnum):
    """The independent ways through presend; a backlog in one never delays another."""

    __hash__ = str.__hash__  # Enum's is written in Python, and every request's key is looked up ten times

    RECHARGE = "recharge"
    """Pre-checks before a recharge: a shopper waits."""
    SMS = "sms"
    """Re-checks after a failed SMS: nobody waits, batches may fill."""
    DIRECT = "direct"
    """HTTP callers of the front door, and ``presend check``."""


class RequestKey(NamedTuple):
    """The identity of a request: the same key again gets the same answer and event, unbilled."""

    source: str
    lane: Lane
    reference: str
    attempt: int


class CheckRequest(msgspec.Struct, frozen=True, gc=False):
    """One number to check, as intake understood it."""

    lane: Lane
    # order_id (recharge), message_id (sms) or request id (direct); 1 to 128 of A-Z a-z 0-9 . _ : -
    reference: str
    # 11 national digits, or None where the digits given cannot be a mobile number
    msisdn: str | None
    # first receipt by this process, UTC
    received_at: datetime
    # counts from 1; a producer that tries again counts up
    attempt: int = 1
    # tells two producers with the same numbering apart
    source: str = ""
    # code of the operator whose product is sold (recharge) or whose channel failed (sms)
    operator: str | None = None
    # the delivery report's code, as the gateway wrote it (sms)
    failure_code: str | None = None
    # when the SMS failed, UTC (sms)
    failed_at: datetime | None = None
    # past this moment the request is decided ``expired``, UTC
    expires_at: datetime | None = None
    # age in seconds of a stored answer that the caller accepts (direct); None: live only
    max_age_seconds: float | None = None

    @property
    def key(self) -> RequestKey:
        """The request's identity in the ledger."""
        return RequestKey(self.source, self.lane, self.reference, self.attempt)

    def same_question(self, msisdn: str | None, operator: str | None) -> bool:
        """Whether a request of the same key asked just this; if not, the two conflict."""
        return self.msisdn == msisdn and self.operator == operator
