"""What each rival does with its requests: presend's answers, rows and events, by the shortest way.

Written to be quick: kept-alive plain HTTP, arrays instead of row after row, msgspec throughout. It gives the
guarantees a Celery app can: nothing is asked whose key or number is known, one transaction a batch
which the same keys may repeat, events confirmed before the messages are acknowledged.

Knows presend's tables and nothing of its code. One connection to each service in a process.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import amqp
import msgspec
import psycopg
import redis
from kombu import Connection, Exchange, Producer

EVENTS = "presend.events"
_NAMESPACE = uuid.UUID("3c0018b3-c6df-577f-9140-4c3e5cc80e18")
_OPERATORS = {"中国移动": "CMCC", "中国联通": "CUCC", "中国电信": "CTCC", "中国广电": "CBN"}
_STATUS = {"0": "not_ported", "1": "ported", "3": "virtual"}
_MAX_AGE = timedelta(days=1)

_KNOWN = """
    SELECT c.reference, c.msisdn, c.status, c.range_holder, c.current_operator, c.area, c.observed_at,
        c.decision, c.reason, c.answered_from, c.batch_id::text, c.event_id::text, c.decided_at
    FROM unnest(%s::text[]) AS k(reference) JOIN LATERAL (
        SELECT * FROM check_request r
        WHERE r.source = '' AND r.lane = 'sms' AND r.reference = k.reference AND r.attempt = 1 OFFSET 0
    ) c ON true
"""
_FRESH = """
    SELECT msisdn, status, range_holder, current_operator, area, observed_at
    FROM port_record WHERE msisdn = ANY(%s::bigint[]) AND observed_at > %s
"""
_LEARN = """
    INSERT INTO port_record AS p
        (msisdn, status, range_holder, current_operator, area, observed_at, source)
    SELECT n.*, 'provider' FROM unnest(
        %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[]
    ) AS n ORDER BY 1
    ON CONFLICT (msisdn) DO UPDATE SET status = excluded.status, range_holder = excluded.range_holder,
        current_operator = excluded.current_operator, area = excluded.area, observed_at = excluded.observed_at
    WHERE p.observed_at < excluded.observed_at
"""
_STORE = """
    INSERT INTO check_request (source, lane, reference, attempt, msisdn, asked_operator, failure_code, status,
        range_holder, current_operator, target_operator, area, observed_at, decision, reason, answered_from,
        batch_id, call_id, event_id, received_at, decided_at)
    SELECT '', 'sms', n.reference, 1, n.msisdn, n.asked, n.failure, n.status, n.holder, n.current, n.target,
        n.area, n.observed_at, n.decision, n.reason, n.answered_from, %s, NULL, n.event_id, %s, %s
    FROM unnest(
        %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::text[], %s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::uuid[]
    ) AS n(reference, msisdn, asked, failure, status, holder, current, target, area, observed_at, decision,
        reason, answered_from, event_id)
    ORDER BY 3 ON CONFLICT DO NOTHING
"""


class _Result(msgspec.Struct):
    res: str
    mobile: str = msgspec.field(name="Mobile")
    area: str = msgspec.field(name="Area")


class _BatchResult(_Result):
    init_isp: str = msgspec.field(name="Init_Isp")
    now_isp: str = msgspec.field(name="Now_Isp")


class _SingleResult(_Result):
    init_isp: str = msgspec.field(name="Init_isp")
    now_isp: str = msgspec.field(name="Now_isp")


class _BatchItem(msgspec.Struct):
    code: int
    result: _BatchResult


class _SingleItem(msgspec.Struct):
    code: int
    result: _SingleResult


_read_batch = msgspec.json.Decoder(list[_BatchItem]).decode
_read_single = msgspec.json.Decoder(_SingleItem).decode
_encode = msgspec.json.Encoder().encode


def settle(items: Sequence[dict[str, Any]]) -> None:
    """Answer requests: a row and an event each, once all of it is on the disk and confirmed."""
    received_at = datetime.now(UTC)
    by_reference = {item["message_id"]: item for item in items}
    database = _database()
    known = {row[0]: row[1:] for row in database.execute(_KNOWN, [list(by_reference)])}
    new = [item for reference, item in by_reference.items() if reference not in known]
    events = [_event(reference, str(row[0]), *row[1:]) for reference, row in known.items()]
    if new:
        events += _decide(new, received_at)
    _publish(events)


def _decide(items: list[dict[str, Any]], received_at: datetime) -> list[tuple[str, str, bytes]]:
    """Ask, decide and store; the events that have to be sent."""
    database = _database()
    wanted = list({item["mobile"] for item in items})
    since = datetime.now(UTC) - _MAX_AGE
    facts = {
        str(row[0]): (*row[1:], "stored")
        for row in database.execute(_FRESH, [[int(number) for number in wanted], since])
    }
    asked_at = datetime.now(UTC)
    answers = _ask([number for number in wanted if number not in facts])
    for answer in answers:
        facts[answer.mobile] = (
            _STATUS[answer.res],
            _OPERATORS[answer.init_isp],
            _OPERATORS[answer.now_isp],
            answer.area,
            asked_at,
            "live",
        )
    batch_id, decided_at = str(uuid.uuid4()), datetime.now(UTC)
    rows, events = [], []
    for item in items:
        reference, number, asked = item["message_id"], item["mobile"], item["operator"]
        status, holder, current, area, observed_at, answered_from = facts[number]
        moved = current != asked
        decision, reason = ("reroute", "other_operator") if moved else ("resend", "same_operator")
        event_id = str(uuid.uuid5(_NAMESPACE, _encode(("", "sms", reference, 1)).decode()))
        rows.append((
            reference, int(number), asked, item.get("failure_code"), status, holder, current,
            current if moved else None, area, observed_at, decision, reason, answered_from, event_id,
        ))  # fmt: skip
        events.append(
            _event(
                reference, number, status, holder, current, area, observed_at, decision, reason,
                answered_from, batch_id, event_id, decided_at,
            )
        )  # fmt: skip
    with database.transaction():
        if answers:
            learned = [(int(answer.mobile), *facts[answer.mobile][:5]) for answer in answers]
            database.execute(_LEARN, [list(column) for column in zip(*learned, strict=True)])
        columns = [list(column) for column in zip(*rows, strict=True)]
        database.execute(_STORE, [batch_id, received_at, decided_at, *columns])
    return events


def _event(  # noqa: PLR0917 - in the order of the columns
    reference: str, number: str, status: str, holder: str, current: str, area: str, observed_at: datetime,
    decision: str, reason: str, answered_from: str, batch_id: str, event_id: str, decided_at: datetime,
) -> tuple[str, str, bytes]:  # fmt: skip
    """Type, id and body of a request's event."""
    kind = f"sms.{decision}"
    body = {
        "specversion": "1.0",
        "id": event_id,
        "source": "presend/sms",
        "type": kind,
        "subject": reference,
        "time": decided_at.isoformat(timespec="microseconds")[:26] + "Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:presend:event:1",
        "data": {
            "lane": "sms",
            "source": "",
            "reference": reference,
            "attempt": 1,
            "mobile": number,
            "decision": decision,
            "reason": reason,
            "status": status,
            "area": area,
            "range_holder": holder,
            "current_operator": current,
            "target_operator": current if decision == "reroute" else None,
            "observed_at": observed_at.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z",
            "answered_from": answered_from,
            "batch_id": batch_id,
        },
    }
    return kind, event_id, _encode(body)


def _ask(numbers: list[str]) -> list[Any]:
    """The provider's answers, 1000 numbers a call; one number by the call for one."""
    if len(numbers) == 1:
        form = urlencode({"apikey": os.environ["PRESEND_PROVIDER_APIKEY"], "mobile": numbers[0]}).encode()
        return [_read_single(_post("/carrier", form, "application/x-www-form-urlencoded")).result]
    answers: list[Any] = []
    for begin in range(0, len(numbers), 1000):
        asked = {
            "ApiKey": os.environ["PRESEND_PROVIDER_APIKEY"],
            "PhoneNumbers": numbers[begin : begin + 1000],
        }
        items = _read_batch(_post("/carrier_batch", _encode(asked), "application/json"))
        answers += [item.result for item in items]
    return answers


def _post(path: str, body: bytes, content_type: str) -> bytes:
    connection = _provider()
    connection.request("POST", path, body, {"Content-Type": content_type})
    return connection.getresponse().read()


def _publish(events: Sequence[tuple[str, str, bytes]]) -> None:
    """Send events; returns once the broker has them all."""
    if os.environ["PRESEND_BROKER_URL"].startswith("redis"):
        pipe = _redis().pipeline(transaction=False)
        for _, _, body in events:
            pipe.xadd(EVENTS, {"event": body}, maxlen=1_000_000, approximate=True)
        pipe.execute()
    elif os.environ["RIVAL_EVENTS"] == "transaction":
        channel = _transactional()
        for kind, event_id, body in events:
            message = amqp.Message(
                body,
                content_type="application/cloudevents+json",
                delivery_mode=2,
                message_id=event_id,
                type=kind,
                app_id="rival",
            )
            channel.basic_publish(message, exchange=EVENTS, routing_key=kind, mandatory=True)
        channel.tx_commit()
    else:
        for kind, event_id, body in events:
            _confirming().publish(
                body,
                routing_key=kind,
                exchange=EVENTS,
                mandatory=True,
                delivery_mode=2,
                content_type="application/cloudevents+json",
                content_encoding="binary",
                message_id=event_id,
                type=kind,
                app_id="rival",
            )


@cache
def _database() -> psycopg.Connection:
    return psycopg.connect(os.environ["PRESEND_DATABASE_URL"], autocommit=True)


@cache
def _provider() -> HTTPConnection:
    where = urlsplit(os.environ["PRESEND_PROVIDER_URL"])
    return HTTPConnection(where.hostname or "", where.port, timeout=30)


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(os.environ["PRESEND_BROKER_URL"])


@cache
def _confirming() -> Producer:
    """A producer that waits for the confirm of each message, as kombu does it."""
    connection = Connection(
        os.environ["PRESEND_BROKER_URL"], transport_options={"confirm_publish": True}, heartbeat=0
    )
    channel = connection.channel()
    Exchange(EVENTS, type="topic", durable=True).bind(channel).declare()
    return Producer(channel, auto_declare=False)


@cache
def _transactional() -> Any:
    """A channel whose messages are the broker's once it has committed."""
    channel: Any = Connection(os.environ["PRESEND_BROKER_URL"], heartbeat=0).channel()
    Exchange(EVENTS, type="topic", durable=True).bind(channel).declare()
    channel.tx_select()
    return channel
