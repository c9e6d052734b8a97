"""AMQP 0-9-1 frames of published events, so that a batch leaves in one write.

py-amqp writes three frames a message and looks for the broker's answers before each: for a thousand events
that costs more than making them (docs/decisions/by-hand-on-the-hot-path.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from worker.portability.events import CONTENT_TYPE, Event

_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME = struct.Struct(">BHI")  # type, channel, payload bytes
_END = b"\xce"
_AROUND_PAYLOAD = _FRAME.size + len(_END)
_PUBLISH = struct.pack(">HHH", 60, 40, 0)  # class basic, method publish, reserved
_MANDATORY = b"\x01"
_PROPERTIES = struct.Struct(">HHQH")  # class, weight, body bytes, which properties follow
_BASIC = 60
_CONTENT_TYPE, _DELIVERY_MODE, _MESSAGE_ID, _TYPE, _APP_ID = (1 << bit for bit in (15, 12, 7, 5, 3))
_WHICH = _CONTENT_TYPE | _DELIVERY_MODE | _MESSAGE_ID | _TYPE | _APP_ID
_PERSISTENT = b"\x02"


class Frames:
    """Writes events for one channel: persistent, mandatory, routed by their type."""

    def __init__(self, channel: int, exchange: str, *, frame_max: int) -> None:
        self._channel = channel
        self._exchange = _short(exchange)
        self._most = frame_max - _AROUND_PAYLOAD
        # by event type: what its frames have in common
        self._publish: dict[str, bytes] = {}

    def of(self, event: Event) -> bytes:
        """The frames that publish an event."""
        publish = self._publish.get(event.type)
        if publish is None:
            key = _short(event.type)
            publish = self._frame(_METHOD, _PUBLISH + self._exchange + key + _MANDATORY)
            self._publish[event.type] = publish
        header = (
            _PROPERTIES.pack(_BASIC, 0, len(event.body), _WHICH)
            + _short(CONTENT_TYPE)
            + _PERSISTENT
            + _short(event.id)
            + _short(event.type)
            + _short("presend")
        )
        return b"".join([publish, self._frame(_HEADER, header), *self._body(event.body)])

    def _body(self, body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), self._most):
            yield self._frame(_BODY, body[start : start + self._most])

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return _FRAME.pack(kind, self._channel, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    """AMQP's short string: a length of one byte, UTF-8."""
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded
