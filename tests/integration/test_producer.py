"""The producer over both brokers: what it sends is what the worker's queues hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kombu import Connection

from tests.services import connect_amqp
from worker.deliveries import read_message
from worker.errors import NotConfirmed, SettingsError
from worker.producing.producer import Producer
from worker.queues import QUEUE_ARGUMENTS, lane_queues


def taken(broker_url: str, name: str) -> list[Any]:
    """Every message of a queue, as kombu gives it to the worker."""
    queues = {queue.name: queue for queue in lane_queues(redis=broker_url.startswith("redis"))}
    with Connection(broker_url) as connection, connection.channel() as channel:
        queue = queues[name](channel)
        return list(iter(lambda: queue.get(no_ack=True), None))


def test_a_message_is_celerys_protocol_2(broker_url: str) -> None:
    arguments = {"message_id": "m1", "mobile": "13972565391", "operator": "移动"}
    with Producer(broker_url) as producer:
        message_id = producer.send("sms.recheck", arguments)
        producer.send("recharge.precheck_many", {"items": []}, message_id="given")
    (sms,) = taken(broker_url, "sms")
    assert read_message(sms).arguments == arguments
    assert sms.headers["task"] == "sms.recheck"
    assert sms.headers["id"] == message_id == sms.properties["correlation_id"]
    assert sms.headers["ignore_result"] is True
    assert "13972565391" not in json.dumps(sms.headers)
    (recharge,) = taken(broker_url, "recharge")
    assert recharge.headers["id"] == "given"


def test_ids_differ(broker_url: str) -> None:
    with Producer(broker_url) as producer:
        assert producer.send("sms.recheck", {}) != producer.send("sms.recheck", {})


def test_messages_are_persistent_and_the_queues_the_workers(amqp_url: str) -> None:
    with Producer(amqp_url) as producer:
        producer.send("sms.recheck", {})
    with connect_amqp(amqp_url) as connection:  # refused where it exists with other arguments
        connection.channel().queue_declare("sms", durable=True, auto_delete=False, arguments=QUEUE_ARGUMENTS)
    assert taken(amqp_url, "sms")[0].properties["delivery_mode"] == 2


def test_a_full_queue_is_not_confirmed(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QUEUE_ARGUMENTS, "x-max-length", 1)

    def fill(producer: Producer) -> None:
        for _ in range(50):  # a quorum queue refuses a little late
            producer.send("sms.recheck", {})

    with Producer(amqp_url) as producer, pytest.raises(NotConfirmed, match="its queue is full"):
        fill(producer)


def test_a_queue_of_other_arguments_is_told(amqp_url: str) -> None:
    with connect_amqp(amqp_url) as connection:
        connection.channel().queue_declare("sms", durable=True, auto_delete=False)
    with pytest.raises(SettingsError, match="other arguments"), Producer(amqp_url):
        pass
