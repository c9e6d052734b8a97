"""What a subscriber gets of events that left in one write, as py-amqp reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services import connect_amqp
from worker.portability.events import CONTENT_TYPE, Event
from worker.publisher import EVENTS
from worker.publisher.amqp import AmqpPublisher

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
