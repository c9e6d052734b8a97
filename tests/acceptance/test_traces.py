"""One trace from the producer's message to its event, at a collector that a real worker reports to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.collector import Collector, collecting
from tests.acceptance.harness import Place
from tests.acceptance.provider import plain_numbers
from tests.acceptance.test_flower import numbers_in
from tests.acceptance.waiting import eventually
from tests.services import connect_amqp

TRACE, PRODUCER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def test_from_the_producers_message_to_the_event(on_rabbitmq: Place, collector: Collector) -> None:
    here, numbers = on_rabbitmq, plain_numbers(21)
    with connect_amqp(here.broker_url) as connection, connection.channel() as channel:
        channel.exchange_declare("presend.events", "topic", durable=True, auto_delete=False)
        queue = channel.queue_declare("", exclusive=True).queue
        channel.queue_bind(queue, "presend.events", "#")
        here.worker("recharge", "sms", traces_endpoint=collector.url, sms_linger_seconds="1")
        here.producer.send_task(
            "recharge.precheck",
            kwargs={"order_id": "O1", "mobile": numbers[0], "operator": "CMCC"},
            headers={"traceparent": f"00-{TRACE}-{PRODUCER}-01"},
        )
        here.send_many("sms", numbers[1:])
        here.decided(21)
        (message,) = eventually(lambda: collector.named("recharge.precheck"), "the message's span")
        assert (message.trace, message.parent) == (TRACE, PRODUCER)
        assert message.attributes["presend.outcome"] == "decided"
        (batch,) = eventually(lambda: collector.named("batch recharge"), "the batch's span")
        assert (batch.trace, batch.parent) == (TRACE, message.id)
        steps = {span.name for span in collector.spans if span.parent == batch.id}
        assert steps == {"provider call", "commit", "publish"}
        assert message.nanoseconds >= batch.nanoseconds

        eventually(lambda: len(collector.named("sms.recheck")) == 20, "the spans of the other messages")
        spans = {span.id: span for span in collector.named("sms.recheck")}
        linked = [link for span in collector.named("batch sms") for link in span.links or (span.parent,)]
        assert sorted(linked) == sorted(spans), "each message is in one batch"
        for span in collector.named("batch sms"):
            if span.links:
                assert not span.parent
                assert all(spans[each].links == (span.id,) for each in span.links)

        traces: dict[str, str] = {}
        while len(traces) < 21:
            got: Any = eventually(lambda: channel.basic_get(queue, no_ack=True), "an event")
            traces[json.loads(got.body)["subject"]] = got.headers["traceparent"]
    assert traces["O1"] == f"00-{TRACE}-{message.id}-01"
    assert {each.split("-")[2] for subject, each in traces.items() if subject != "O1"} == spans.keys()
    assert not numbers_in(repr(collector.spans), numbers)
    here.stop()


def test_without_a_collector_no_event_says_anything(on_rabbitmq: Place) -> None:
    here = on_rabbitmq
    with connect_amqp(here.broker_url) as connection, connection.channel() as channel:
        channel.exchange_declare("presend.events", "topic", durable=True, auto_delete=False)
        queue = channel.queue_declare("", exclusive=True).queue
        channel.queue_bind(queue, "presend.events", "#")
        here.worker("recharge")
        here.producer.send_task(
            "recharge.precheck",
            kwargs={"order_id": "O1", "mobile": plain_numbers(1)[0], "operator": "CMCC"},
            headers={"traceparent": f"00-{TRACE}-{PRODUCER}-01"},
        )
        got: Any = eventually(lambda: channel.basic_get(queue, no_ack=True), "an event")
    assert "application_headers" not in got.properties
    here.stop()
