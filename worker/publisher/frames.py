"""AMQP 0-9-1 frames of published events, so that a batch leaves in one write.

py-amqp writes three frames a message and looks for the broker's answers before each: for a thousand events
that costs more than making them (docs/decisions/by-hand-on-the-hot-path.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from worker.portability.events import CONTENT_TYPE, Event
from worker.publisher.messages import BATCH_CONTENT_TYPE, batch_of
from worker.rabbitmq_broker.deliveries import BODY, END, HEADER, METHOD

_FRAME = struct.Struct(">BHI")  # type, channel, payload bytes
_END = bytes([END])
_AROUND_PAYLOAD = _FRAME.size + len(_END)
_BASIC = 60
_PUBLISH = struct.pack(">HHH", _BASIC, 40, 0)  # class, method, reserved
_MANDATORY = b"\x01"
_PROPERTIES = struct.Struct(">HHQH")  # class, weight, body bytes, which properties follow
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _MESSAGE_ID, _TYPE, _APP_ID = (
    1 << bit for bit in (15, 13, 12, 7, 5, 3)
)
_OF_BATCH = _CONTENT_TYPE | _DELIVERY_MODE | _TYPE | _APP_ID
_OF_EVENT = _OF_BATCH | _MESSAGE_ID
_PERSISTENT = b"\x02"
_LONG = struct.Struct(">I")


def _short(text: str) -> bytes:
    """AMQP's short string: a length of one byte, UTF-8."""
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


_EVENT_AND_MODE = _short(CONTENT_TYPE) + _PERSISTENT
_BATCH_AND_MODE = _short(BATCH_CONTENT_TYPE) + _PERSISTENT
_APP = _short("presend")


def _traced(traceparent: str) -> bytes:
    """An event's first properties, with the one header that continues a trace."""
    value = traceparent.encode()
    table = _short("traceparent") + b"S" + _LONG.pack(len(value)) + value
    return _short(CONTENT_TYPE) + _LONG.pack(len(table)) + table + _PERSISTENT


class Frames:
    """Writes events for one channel: persistent, mandatory, routed by their type."""

    def __init__(self, channel: int, exchange: str, *, frame_max: int) -> None:
        self._channel = channel
        self._exchange = _short(exchange)
        self._most = frame_max - _AROUND_PAYLOAD
        # by event type
        self._of_type: dict[str, tuple[bytes, bytes]] = {}

    def of(self, message: Sequence[Event]) -> bytes:
        """The frames that publish an event by itself, the only one of its message."""
        (event,) = message
        publish, type_and_app = self._around(event.type)
        which, before = _OF_EVENT, _EVENT_AND_MODE
        if event.traceparent is not None:
            which, before = which | _HEADERS, _traced(event.traceparent)
        return self._message(publish, which, before + _short(event.id) + type_and_app, event.body)

    def of_batch(self, message: Sequence[Event]) -> bytes:
        """The frames that publish events of one type as a batch.

        It has no message id: sent again in other company it is another message.
        """
        publish, type_and_app = self._around(message[0].type)
        body = batch_of(event.body for event in message)
        return self._message(publish, _OF_BATCH, _BATCH_AND_MODE + type_and_app, body)

    def _around(self, event_type: str) -> tuple[bytes, bytes]:
        """What is the same for all messages of a type: the first frame, and the last properties."""
        if event_type not in self._of_type:
            key = _short(event_type)
            publish = self._frame(METHOD, _PUBLISH + self._exchange + key + _MANDATORY)
            self._of_type[event_type] = publish, key + _APP
        return self._of_type[event_type]

    def _message(self, publish: bytes, which: int, properties: bytes, body: bytes) -> bytes:
        header = self._frame(HEADER, _PROPERTIES.pack(_BASIC, 0, len(body), which) + properties)
        return b"".join([publish, header, *self._body(body)])

    def _body(self, body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), self._most):
            yield self._frame(BODY, body[start : start + self._most])

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return _FRAME.pack(kind, self._channel, len(payload)) + payload + _END
