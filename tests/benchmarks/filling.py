"""Filling a queue before it is drained: messages as a Celery producer writes them, by the thousand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import takewhile
from typing import Any
from uuid import uuid4

import amqp
import redis
from celery import Celery
from kombu import Connection

from tests.services import connect_amqp
from worker.queues import QUEUE_ARGUMENTS

QUEUE = "sms"
MANY = 1000
"""Items a ``*_many`` message carries."""
_IN_FLIGHT = 2000


def items(count: int, *, first: int = 0) -> list[dict[str, str]]:
    """As many sms that failed, each of another number; always the same ones."""
    return [
        {
            "message_id": f"m{index}",
            "mobile": str(13_900_000_000 + 7919 * index % 99_999_989),
            "operator": "CMCC",
            "failure_code": "MK:0001",
        }
        for index in range(first, first + count)
    ]


def fill(
    broker_url: str,
    count: int,
    *,
    many: bool,
    results: bool = False,
    first: int = 0,
) -> int:
    """Put items into the queue ``sms``; return how many messages."""
    wanted = items(count, first=first)
    bodies: list[dict[str, Any]] = (
        [{"items": wanted[begin : begin + MANY]} for begin in range(0, count, MANY)] if many else list(wanted)
    )
    messages = written("sms.recheck_many" if many else "sms.recheck", bodies, results=results)
    if broker_url.startswith("redis"):
        _to_redis(broker_url, messages)
    else:
        _to_rabbitmq(broker_url, messages)
    return len(bodies)


def declare(broker_url: str, *, queue_type: str = "quorum") -> None:
    """Make the queue anew, empty; on RabbitMQ of this type, as the README has it."""
    if broker_url.startswith("redis"):
        return
    with closing(connect_amqp(broker_url)) as connection:
        channel = connection.channel()
        channel.queue_delete(QUEUE)
        arguments = QUEUE_ARGUMENTS if queue_type == "quorum" else {"x-queue-type": "classic"}
        channel.queue_declare(QUEUE, durable=True, auto_delete=False, arguments=arguments)


Written = tuple[dict[str, Any], dict[str, Any], str]


def written(task: str, arguments: Iterable[dict[str, Any]], *, results: bool = False) -> Iterator[Written]:
    """Headers, properties and body of each; what Celery writes once is written once here too."""
    app = Celery("producer")
    first: Any = app.amqp.as_task_v2(
        "id", task, args=(), kwargs={}, ignore_result=not results, argsrepr="()", kwargsrepr="{}"
    )
    for one in arguments:
        task_id = str(uuid4())
        shown = repr(one)
        headers = first.headers | {
            "id": task_id,
            "root_id": task_id,
            "kwargsrepr": shown if len(shown) < 1024 else shown[:1020] + "...}",
        }
        body = json.dumps([[], one, first.body[2]])
        yield headers, {"correlation_id": task_id, "reply_to": first.properties["reply_to"]}, body


def for_rabbitmq(message: Written) -> amqp.Message:
    """What Celery would publish of it."""
    headers, properties, body = message
    return amqp.Message(
        body,
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=2,
        priority=0,
        application_headers=headers,
        correlation_id=properties["correlation_id"],
        reply_to=properties["reply_to"] or "",
    )


def _to_rabbitmq(url: str, messages: Iterator[Written]) -> None:
    """Publish with the broker's confirms, many in flight: what is not confirmed at the end may be lost."""
    with closing(connect_amqp(url)) as connection:
        channel = connection.channel()
        channel.confirm_select()
        unconfirmed: dict[int, None] = {}

        def note(tag: int, multiple: bool) -> None:
            confirmed = takewhile(lambda each: each <= tag, list(unconfirmed)) if multiple else (tag,)
            for each in confirmed:
                unconfirmed.pop(each, None)

        def refuse(*_about: Any) -> None:
            raise RuntimeError("the broker refused a message: is it short of memory or disk?")

        channel.events["basic_ack"].add(note)
        channel.events["basic_nack"].add(refuse)
        for tag, message in enumerate(messages, 1):
            unconfirmed[tag] = None
            channel.basic_publish(for_rabbitmq(message), routing_key=QUEUE)
            while len(unconfirmed) >= _IN_FLIGHT:
                connection.drain_events(timeout=30)
        while unconfirmed:
            connection.drain_events(timeout=30)


def _to_redis(url: str, messages: Iterator[Written]) -> None:
    """Push what kombu would push."""
    with Connection(url) as connection, redis.Redis.from_url(url) as client:
        channel: Any = connection.channel()
        pipe = client.pipeline(transaction=False)
        for headers, properties, body in messages:
            message = channel.prepare_message(
                body, content_type="application/json", content_encoding="utf-8", headers=headers
            )
            message["properties"] |= properties | {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            }
            message["body"] = channel.encode_body(message["body"], "base64")[0]
            pipe.lpush(QUEUE, json.dumps(message))
            if len(pipe) >= _IN_FLIGHT:
                pipe.execute()
        pipe.execute()
