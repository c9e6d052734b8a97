"""Deliveries as AMQP 0-9-1 frames them: a method, a header and a body frame, each closed by an octet.

What this module does not know, or finds cut off or malformed, it leaves to py-amqp, whose errors are then
the ones that show.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from amqp.serialization import decode_properties_basic, loads

METHOD, HEADER, BODY = 1, 2, 3
"""Types of frames."""
END = 0xCE
"""The octet that closes a frame."""
frame_head = struct.Struct(">BHI").unpack_from
"""Type, channel and size: the seven octets before a frame's payload."""

_DELIVER = b"\x00\x3c\x00\x3c"
_content_head = struct.Struct(">HHQH").unpack_from
_tag = struct.Struct(">Q?").unpack_from
_signed_long = struct.Struct(">i").unpack_from
_LARGEST = 131_064
"""A body of more than one of RabbitMQ's frames comes in parts."""

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 0x8000, 0x4000, 0x2000, 0x1000
_PRIORITY, _CORRELATION_ID, _REPLY_TO = 0x0800, 0x0400, 0x0200
_OTHERS = 0x01FF
_LONG_STRING, _VOID, _LONG, _BOOLEAN, _TABLE, _ARRAY = b"SVItFA"


@dataclass(slots=True)
class Received:
    """What py-amqp's message tells kombu."""

    body: bytes
    properties: dict[str, Any]
    # both are set by the channel
    channel: Any = None
    delivery_info: Any = None

    @property
    def delivery_tag(self) -> Any:
        """Its number on its channel."""
        return self.delivery_info["delivery_tag"]


class Delivered(NamedTuple):
    """A whole delivery."""

    # consumer tag, delivery tag, redelivered, exchange, routing key
    arguments: tuple[str, int, bool, str, str]
    message: Received
    # where the next frame begins
    end: int


class CutOffError(Exception):
    """The rest of the delivery has not arrived yet."""


class _OtherFrameError(Exception):
    """Another frame came in between."""


def delivery(data: bytes, start: int, stop: int, channel: int) -> Delivered | None:
    """Read the delivery whose method frame's payload is ``data[start:stop]``.

    None if it is no delivery, or one for py-amqp.
    """
    if data[start : start + 4] != _DELIVER:
        return None
    try:
        header, header_end = _payload(data, stop + 1, HEADER, channel)
        _class, _weight, size, flags = _content_head(data, header)
        if size > _LARGEST:
            return None
        body = body_end = end = header_end + 1
        if size:
            body, body_end = _payload(data, end, BODY, channel)
            if body_end - body != size:
                return None
            end = body_end + 1
        tag = start + 5 + data[start + 4]
        delivery_tag, redelivered = _tag(data, tag)
        (consumer_tag,) = _short_strings(data[start + 4 : tag])
        exchange, routing_key = _short_strings(data[tag + 9 : stop])
        return Delivered(
            (consumer_tag, delivery_tag, redelivered, exchange, routing_key),
            Received(data[body:body_end], _properties(data, header + 14, flags)),
            end,
        )
    except (struct.error, ValueError, IndexError, _OtherFrameError):
        return None


def _payload(data: bytes, at: int, kind: int, channel: int) -> tuple[int, int]:
    if len(data) - at < 7:
        raise CutOffError
    found, on, size = frame_head(data, at)
    start = at + 7
    end: int = start + size
    if found != kind or on != channel:
        raise _OtherFrameError
    if len(data) <= end:
        raise CutOffError
    if data[end] != END:
        raise _OtherFrameError
    return start, end


@lru_cache(maxsize=256)
def _short_strings(data: bytes) -> tuple[str, ...]:
    """Short strings, one after the other; the same few in each delivery."""
    found, at = [], 0
    while at < len(data):
        one, at = _short_string(data, at)
        found.append(one)
    return tuple(found)


def _properties(data: bytes, at: int, flags: int) -> dict[str, Any]:
    if flags & _OTHERS:
        properties: dict[str, Any] = decode_properties_basic(data, at - 2)[0]
        return properties
    found: dict[str, Any] = {}
    if flags & _CONTENT_TYPE:
        found["content_type"], at = _short_string(data, at)
    if flags & _CONTENT_ENCODING:
        found["content_encoding"], at = _short_string(data, at)
    if flags & _HEADERS:
        found["application_headers"], at = _headers.read(data, at)
    if flags & _DELIVERY_MODE:
        found["delivery_mode"] = data[at]
        at += 1
    if flags & _PRIORITY:
        found["priority"] = data[at]
        at += 1
    if flags & _CORRELATION_ID:
        found["correlation_id"], at = _short_string(data, at)
    if flags & _REPLY_TO:
        found["reply_to"], at = _short_string(data, at)
    return found


def _short_string(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end


def _table(data: bytes, start: int) -> tuple[dict[str, Any], int]:
    """Read a table of the types that Celery's headers have; py-amqp reads any other."""
    found: dict[str, Any] = {}
    at = start + 4
    end = at + int.from_bytes(data[start:at], "big")
    while at < end:
        entry = _entry(data, at)
        if entry is None:
            (table,), at = loads("F", data, start)
            return table, at
        name, found[name], at = entry
    return found, at


def _entry(data: bytes, at: int) -> tuple[str, Any, int] | None:  # noqa: PLR0911 - a type each
    """Name, value and end of a table's entry; None for a type that py-amqp has to read."""
    value_at = at + 2 + data[at]
    name = data[at + 1 : value_at - 1].decode()
    kind = data[value_at - 1]
    if kind == _LONG_STRING:
        at = value_at + 4 + int.from_bytes(data[value_at : value_at + 4], "big")
        return name, data[value_at + 4 : at].decode(), at
    if kind == _VOID:
        return name, None, value_at
    if kind == _LONG:
        return name, _signed_long(data, value_at)[0], value_at + 4
    if kind == _BOOLEAN:
        return name, bool(data[value_at]), value_at + 1
    if kind == _TABLE:
        return name, *_table(data, value_at)
    if kind == _ARRAY:
        (value,), at = loads("A", data, value_at)
        return name, value, at
    return None


_TRIES, _MOST_GAIN = 10, 1000


class Headers:
    """Reads the tables of messages that have most of their entries in common, as those of one task have.

    What two tables in a row have in common is compared at once from then on, and not read again.
    """

    def __init__(self) -> None:
        # octets that tables begin, or go on, with, and what they say; None: an entry that differs
        self._parts: list[tuple[bytes, dict[str, Any]] | None] = []
        self._last: dict[str, bytes] = {}
        # tables that were as expected, less those that were not: where there are many more of these it is
        # seldom tried again
        self._gain = _TRIES

    def read(self, data: bytes, start: int) -> tuple[dict[str, Any], int]:
        """See :func:`_table`."""
        at = start + 4
        end = at + int.from_bytes(data[start:at], "big")
        found: dict[str, Any] = {}
        for part in self._parts:
            if part is not None:
                octets, entries = part
                if not data.startswith(octets, at):
                    break
                found.update(entries)
                at += len(octets)
            else:
                entry = _entry(data, at) if at < end else None
                if entry is None:
                    break
                name, found[name], at = entry
        if at == end and self._parts:
            self._gain = min(self._gain + 1, _MOST_GAIN)
            return found, end
        self._gain = self._gain - 1 if self._gain > -_MOST_GAIN else _TRIES
        return self._learn(data, start, end) if self._gain > 0 else _table(data, start)

    def _learn(self, data: bytes, start: int, end: int) -> tuple[dict[str, Any], int]:
        self._parts, last, self._last = [], self._last, {}
        found: dict[str, Any] = {}
        at = start + 4
        while at < end:
            entry = _entry(data, at)
            if entry is None:
                self._parts = []
                return _table(data, start)
            name, value, after = entry
            octets = self._last[name] = data[at:after]
            found[name], at = value, after
            if last.get(name, octets) != octets:
                self._parts.append(None)
            elif self._parts and self._parts[-1] is not None:
                before, entries = self._parts[-1]
                self._parts[-1] = (before + octets, entries | {name: value})
            else:
                self._parts.append((octets, {name: value}))
        return found, at


_headers = Headers()
"""Of every connection: a process has one consumer."""
