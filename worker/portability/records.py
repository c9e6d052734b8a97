"""What is known of a number (``PortRecord``), and a request with its decision (``CheckedRequest``)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from worker.portability.requests import Lane, RequestKey


class Status(StrEnum):
    """What the provider says of a number."""

    __hash__ = str.__hash__  # Enum's is written in Python, and every decision looks one up

    NOT_PORTED = "not_ported"
    """``res`` 0: still with the operator its range belongs to."""
    PORTED = "ported"
    """``res`` 1."""
    VIRTUAL = "virtual"
    """``res`` 3: an MVNO's number; never to be read as ported."""
    UNKNOWN = "unknown"
    """Code -4; never to be read as not ported."""
    INVALID = "invalid"
    """Codes -2 and -3, and 1 for a single number while the account is well."""


class AnsweredFrom(StrEnum):
    """Where the answer to a request came from."""

    __hash__ = str.__hash__  # Enum's is written in Python, and every row's is counted

    LIVE = "live"
    """This request's own provider call."""
    STORED = "stored"
    """A port record young enough."""
    SHARED = "shared"
    """Another request in flight paid for it."""
    RULE = "rule"
    """Nothing needed asking."""


class PortRecord(msgspec.Struct, frozen=True, gc=False):
    """The stored port status of one number; one row of ``port_record``."""

    msisdn: str
    status: Status
    # operator the number range belongs to: a code, or the provider's label where unknown
    range_holder: str | None
    # operator that serves the number now; ``unknown`` keeps the last one seen
    current_operator: str | None
    # province-city as the provider writes it, e.g. 湖北-宜昌
    area: str | None
    # when the provider call that learned this was sent, UTC
    observed_at: datetime
    # observed_at of the call that first saw the present operator differ from an earlier one
    changed_at: datetime | None = None
    # who said so: the provider's name, or an operator's override
    source: str = "provider"
    # when that call's answer came; None for a record of before this was kept
    answered_at: datetime | None = None


class PortChange(msgspec.Struct, frozen=True, gc=False):
    """An observed change of operator; one row of ``port_change``."""

    msisdn: str
    donor: str
    recipient: str
    # observed_at of the record that still named the donor, UTC
    observed_after: datetime
    # observed_at of the record that first named the recipient, UTC
    observed_before: datetime
    # against the regulator's rules (120 days between ports; MVNO numbers cannot port)
    doubtful: bool
    batch_id: str
    event_id: str


class Finding(msgspec.Struct, frozen=True, gc=False):
    """What was found for one request: the facts its decision rests on."""

    status: Status | None = None
    range_holder: str | None = None
    current_operator: str | None = None
    area: str | None = None
    observed_at: datetime | None = None
    answered_from: AnsweredFrom | None = None


class NoAnswer(StrEnum):
    """Why a request had to be decided without an answer."""

    EXPIRED = "expired"
    GATE_CLOSED = "gate_closed"
    BUDGET_SPENT = "budget_spent"
    PROVIDER_FAILING = "provider_failing"


class CheckedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request with its decision; one row of ``check_request``, from which its event is built."""

    source: str
    lane: Lane
    reference: str
    attempt: int
    msisdn: str | None
    asked_operator: str | None
    failure_code: str | None
    status: Status | None
    range_holder: str | None
    current_operator: str | None
    target_operator: str | None
    area: str | None
    observed_at: datetime | None
    # the event type's last word: confirmed, reroute, rejected, unverified, resend, undeliverable
    decision: str
    reason: str
    answered_from: AnsweredFrom | None
    batch_id: str
    # the provider call that answered; None where nothing was bought for this request
    call_id: str | None
    event_id: str
    received_at: datetime
    decided_at: datetime

    @property
    def key(self) -> RequestKey:
        """The request's identity in the ledger."""
        return RequestKey(self.source, self.lane, self.reference, self.attempt)
