"""The CloudEvents that leave presend, built from ledger rows and changes alone.

A row always gives the same bytes, so an event sent again (relay, repeated message) is byte-equal
and a consumer may drop it by ``id``. CloudEvents 1.0, structured JSON; within
``urn:presend:event:1`` fields are only added. docs/ holds the AsyncAPI document.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha1
from typing import Any, cast
from uuid import UUID

import msgspec

from worker.portability.records import AnsweredFrom, CheckedRequest, PortChange, Status
from worker.portability.requests import Lane, RequestKey

CONTENT_TYPE = "application/cloudevents+json"
"""The AMQP content type of an event's body."""
DATASCHEMA = "urn:presend:event:1"
NUMBER_PORTED = "number.ported"
"""The type of a change's event; a request's is its lane and decision, e.g. ``sms.reroute``."""

NAMESPACE = UUID("3c0018b3-c6df-577f-9140-4c3e5cc80e18")
"""Namespace of every event id: uuid5 of the URL ``urn:presend:event``.

It never changes, for consumers recognise a repeated event by its id.
"""


class CheckData(msgspec.Struct, frozen=True, gc=False):
    """``data`` of a decided request; every field is always there, null where it does not apply."""

    lane: Lane
    source: str
    reference: str
    attempt: int
    # 11 digits; null where the digits given cannot be a mobile number
    mobile: str | None
    decision: str
    reason: str
    status: Status | None
    area: str | None
    range_holder: str | None
    current_operator: str | None
    target_operator: str | None
    # RFC 3339, when the answer's provider call was sent
    observed_at: str | None
    answered_from: AnsweredFrom | None
    batch_id: str


class PortedData(msgspec.Struct, frozen=True, gc=False):
    """``data`` of ``number.ported``."""

    mobile: str
    donor: str
    recipient: str
    observed_after: str
    observed_before: str
    doubtful: bool
    batch_id: str


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The CloudEvents 1.0 attributes."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str
    dataschema: str
    data: CheckData | PortedData


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event ready to be published."""

    id: str
    # the routing key, e.g. recharge.confirmed
    type: str
    # the structured JSON, UTF-8
    body: bytes
    # order_id or message_id; the mobile number for number.ported
    subject: str
    # the W3C trace it continues, told beside the body: an event sent again is byte-equal
    traceparent: str | None = None


_encode = msgspec.json.Encoder().encode
_NAMESPACE_BYTES = NAMESPACE.bytes
_VARIANT = dict(zip("0123456789abcdef", 4 * "89ab", strict=True))
"""The digit that says RFC 4122, by the one whose lower two bits it keeps."""


@lru_cache(maxsize=1024)
def rfc3339(moment: datetime) -> str:
    """The instant in UTC with Z and always six decimals, which is what Postgres keeps.

    The same instant always gives the same text, whatever its time zone. Raises ValueError for a naive one.
    Cached: a batch has few different ones.
    """
    if moment.tzinfo is not UTC:
        if moment.tzinfo is None:
            raise ValueError("a time without zone names no instant")
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def event_id(key: RequestKey) -> str:
    """The id of a request's event: uuid5 of the key, written as a JSON array."""
    return _uuid5(_encode(key))


def port_event_id(msisdn: str, observed_before: datetime) -> str:
    """The id of a change's event: uuid5 of number and time, written as a JSON array."""
    return _uuid5(_encode((msisdn, rfc3339(observed_before))))


def _uuid5(name: bytes) -> str:
    """uuid.uuid5 in the namespace, as text, in a fraction of its time: each request has one."""
    digest = sha1(_NAMESPACE_BYTES + name, usedforsecurity=False).hexdigest()
    return (
        f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:32]}"
    )


def of_check(row: CheckedRequest) -> Event:
    """The event of a decided request. Raises ValueError for lane direct, whose callers were answered."""
    if row.lane is Lane.DIRECT:
        raise ValueError("a direct request has no event")
    return _event(
        row.event_id,
        row.lane + "." + row.decision,  # an f-string asks Enum how it looks: ten times as long
        source="presend/" + row.lane,
        subject=row.reference,
        time=rfc3339(row.decided_at),
        data=_check_data(row),
    )


def of_port_change(change: PortChange) -> Event:
    """The ``number.ported`` event of an observed change."""
    observed_before = rfc3339(change.observed_before)
    return _event(
        change.event_id,
        NUMBER_PORTED,
        source="presend/portability",
        subject=change.msisdn,
        time=observed_before,
        data=PortedData(
            mobile=change.msisdn,
            donor=change.donor,
            recipient=change.recipient,
            observed_after=rfc3339(change.observed_after),
            observed_before=observed_before,
            doubtful=change.doubtful,
            batch_id=change.batch_id,
        ),
    )


def check_data(row: CheckedRequest) -> dict[str, Any]:
    """``data`` in plain JSON types: also the Celery result of the request's task, lane direct included."""
    return cast("dict[str, Any]", msgspec.to_builtins(_check_data(row)))


def _check_data(row: CheckedRequest) -> CheckData:
    return CheckData(
        row.lane,
        row.source,
        row.reference,
        row.attempt,
        row.msisdn,
        row.decision,
        row.reason,
        row.status,
        row.area,
        row.range_holder,
        row.current_operator,
        row.target_operator,
        None if row.observed_at is None else rfc3339(row.observed_at),
        row.answered_from,
        row.batch_id,
    )


def _event(
    event_id: str, event_type: str, *, source: str, subject: str, time: str, data: CheckData | PortedData
) -> Event:
    envelope = Envelope(
        "1.0", event_id, source, event_type, subject, time, "application/json", DATASCHEMA, data
    )
    return Event(event_id, event_type, _encode(envelope), subject)
