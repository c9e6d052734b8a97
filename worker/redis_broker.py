"""kombu's Redis transport, except that a list element it cannot read does not end the worker.

kombu decodes an element after it has popped it, so one that is no message (somebody's ``LPUSH sms hello``)
raises in the event loop, and the element is gone. Here it becomes a message without a content type that
anybody takes, is parked as a dead letter with what was in it, and acknowledged like any other.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import redis
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel as KombuChannel
from kombu.transport.redis import Transport as KombuTransport

from worker.portability.mentions import Mentions


class _DeliveryInfo(msgspec.Struct):
    """Where kombu puts a message back that was not acknowledged."""

    exchange: str
    routing_key: str


class _Properties(msgspec.Struct):
    """What kombu reads without asking whether it is there."""

    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: str | None = None


class _Element(msgspec.Struct):
    """A list element that kombu can read."""

    properties: _Properties
    body: str | None = None
    headers: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Element).decode


def readable(element: bytes, queue: str) -> bytes:
    """Return the element, or where kombu could not read it, a message that carries it whole."""
    try:
        read = _decode(element)
        if read.properties.body_encoding == "base64" and read.body:
            base64.b64decode(read.body)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, RecursionError):
        return _wrapped(element, queue)
    return element


def _wrapped(element: bytes, queue: str) -> bytes:
    message = {
        "body": base64.b64encode(element).decode(),
        "content-type": "application/octet-stream",
        "content-encoding": "binary",
        "headers": {},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": queue},
            "delivery_mode": 2,
            "delivery_tag": str(uuid.uuid4()),
            "priority": 0,
        },
    }
    return json.dumps(message).encode()


class _Client(redis.Redis):
    """A client that looks at what a blocking pop brings before kombu does."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        answer: Any = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
        if command_name == "BRPOP" and answer:
            queue, element = answer
            return queue, readable(element, queue.decode())
        return answer


class Channel(KombuChannel):
    """A channel whose elements are all readable."""

    def _get_client(self) -> Any:
        # kombu would look at a key prefix here; there is none, for queue names are an interface
        return _Client


class Transport(KombuTransport):
    """The transport of ``redis://`` and ``rediss://``, once it is installed."""

    Channel = Channel


def install() -> None:
    """Let this process's Celery use this transport for Redis; its URLs stay what they are."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:Transport"))


def waiting(broker_url: str, queues: Sequence[str], mentions: Mentions) -> dict[str, int]:
    """Return how many messages that mention a number wait in each queue, or are not settled."""
    with redis.Redis.from_url(broker_url, socket_timeout=5) as client:
        found = {}
        for queue in queues:
            elements: Any = client.lrange(queue, 0, -1)
            found[queue] = sum(mentions.in_body(element) for element in elements)
        found["handed out"] = sum(mentions.in_body(value) for _, value in client.hscan_iter("unacked"))
    return {place: number for place, number in found.items() if number}
