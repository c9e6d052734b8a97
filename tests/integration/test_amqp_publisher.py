"""What a subscriber gets of events that left in one write, as py-amqp reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.services import connect_amqp
from worker.portability.events import CONTENT_TYPE, Event
from worker.publisher import EVENTS
from worker.publisher.amqp import AmqpPublisher
from worker.publisher.messages import BATCH_CONTENT_TYPE, bodies_in

SENT = [
    Event("id-1", "sms.reroute", '{"area":"广东-深圳"}'.encode(), "m1"),
    Event("id-2", "recharge.confirmed", b"", "o1"),
    Event("id-3", "sms.reroute", b"x" * 300_000, "m2"),  # more than two frames
    Event("id-4", "nobody.asks", b"{}", "m3"),
]


@pytest.fixture
def publisher(amqp_url: str) -> Iterator[AmqpPublisher]:
    made = AmqpPublisher(amqp_url)
    yield made
    made.close()


def test_a_batch_holds_events_of_one_type_as_they_are(amqp_url: str) -> None:
    wide = "x" * 300_000  # more than two frames
    sent = [
        Event(f"id-{number}", kind, f'{{"n":{number},"area":"广东-{wide * (number == 3)}"}}'.encode(), "")
        for number, kind in enumerate(["sms.reroute", "sms.resend", "nobody.asks"] * 5)
    ]
    publisher = AmqpPublisher(amqp_url, event_batch=3)
    with connect_amqp(amqp_url) as connection, connection.channel() as channel, closing(publisher):
        channel.exchange_declare(EVENTS, "topic", durable=True, auto_delete=False)
        queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(queue, EVENTS, "sms.*")

        publisher.publish(sent)

        got = list(iter(lambda: channel.basic_get(queue, no_ack=True), None))
    bodies = [each.body.encode() if isinstance(each.body, str) else bytes(each.body) for each in got]
    assert bodies == [
        b"[" + b",".join(event.body for event in (sent[first::3][begin : begin + 3])) + b"]"
        for first in (0, 1)
        for begin in (0, 3)
    ]
    assert bodies_in(bodies[0]) == [event.body for event in sent[0:9:3]]
    assert got[0].properties == {
        "content_type": BATCH_CONTENT_TYPE,
        "delivery_mode": 2,
        "type": "sms.reroute",
        "app_id": "presend",
    }
    assert [each.delivery_info["routing_key"] for each in got] == ["sms.reroute"] * 2 + ["sms.resend"] * 2
    assert publisher.unrouted == {"nobody.asks": 5}, "events are counted, not messages"


def test_events_arrive_whole_and_those_nobody_wants_are_counted(
    publisher: AmqpPublisher, amqp_url: str
) -> None:
    with connect_amqp(amqp_url) as connection, connection.channel() as channel:
        channel.exchange_declare(EVENTS, "topic", durable=True, auto_delete=False)
        queue = channel.queue_declare(exclusive=True).queue
        for key in ("sms.*", "recharge.*"):
            channel.queue_bind(queue, EVENTS, key)

        publisher.publish(SENT)
        publisher.publish(SENT[:1])  # over the same connection

        got = list(iter(lambda: channel.basic_get(queue, no_ack=True), None))
    bodies = [each.body.encode() if isinstance(each.body, str) else bytes(each.body) for each in got]
    assert bodies == [each.body for each in (*SENT[:3], SENT[0])]
    assert [each.properties for each in got] == [
        {
            "content_type": CONTENT_TYPE,
            "delivery_mode": 2,
            "message_id": each.id,
            "type": each.type,
            "app_id": "presend",
        }
        for each in (*SENT[:3], SENT[0])
    ]
    assert [each.delivery_info["routing_key"] for each in got] == [each.type for each in (*SENT[:3], SENT[0])]
    assert publisher.unrouted == {"nobody.asks": 1}
