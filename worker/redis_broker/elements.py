"""Elements of a queue's list, whatever they are.

One that is no message (somebody's ``LPUSH sms hello``) would raise in kombu's event loop and end the worker.
Here it becomes a message without a content type that anybody takes, is parked as a dead letter with what was
in it, and acknowledged like any other.
"""

from __future__ import annotations

import base64
import uuid
from typing import Any, Literal

import msgspec

from worker.portability.json_kinds import NOT_JSON


class _DeliveryInfo(msgspec.Struct):
    """Where it was sent."""

    exchange: str
    routing_key: str


class _Properties(msgspec.Struct):
    """What kombu reads without asking whether it is there."""

    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64", "utf-8"] | None = None


class _Element(msgspec.Struct):
    """A list element that kombu can read."""

    properties: _Properties
    body: str | None = None
    headers: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def read(element: bytes, queue: str) -> dict[str, Any]:
    """Return the message in an element, or one that carries an element whole which is no message.

    Its body is decoded, so kombu does it no second time.
    """
    try:
        message = _decode(element)
        checked = msgspec.convert(message, _Element)
        if checked.properties.body_encoding == "base64" and checked.body:
            message["body"] = base64.b64decode(checked.body)
            message["properties"]["body_encoding"] = None
    except (*NOT_JSON, ValueError):  # not base64
        return _wrapped(element, queue)
    return message


def _wrapped(element: bytes, queue: str) -> dict[str, Any]:
    return {
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
