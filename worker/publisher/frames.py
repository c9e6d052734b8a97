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
_BASIC = 60
_PUBLISH = struct.pack(">HHH", _BASIC, 40, 0)  # class, method, reserved
_MANDATORY = b"\x01"
_PROPERTIES = struct.Struct(">HHQH")  # class, weight, body bytes, which properties follow
_CONTENT_TYPE, _DELIVERY_MODE, _MESSAGE_ID, _TYPE, _APP_ID = (1 << bit for bit in (15, 12, 7, 5, 3))
_WHICH = _CONTENT_TYPE | _DELIVERY_MODE | _MESSAGE_ID | _TYPE | _APP_ID
_PERSISTENT = b"\x02"


def _short(text: str) -> bytes:
    """AMQP's short string: a length of one byte, UTF-8."""
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


_TYPE_AND_MODE = _short(CONTENT_TYPE) + _PERSISTENT
_APP = _short("presend")


class Frames:
    """Writes events for one channel: persistent, mandatory, routed by their type."""

    def __init__(self, channel: int, exchange: str, *, frame_max: int) -> None:
        self._channel = channel
        self._exchange = _short(exchange)
        self._most = frame_max - _AROUND_PAYLOAD
        # by event type: the first frame, and the last properties
        self._of_type: dict[str, tuple[bytes, bytes]] = {}

    def of(self, event: Event) -> bytes:
        """The frames that publish an event."""
        if event.type not in self._of_type:
            key = _short(event.type)
            publish = self._frame(_METHOD, _PUBLISH + self._exchange + key + _MANDATORY)
            self._of_type[event.type] = publish, key + _APP
        publish, type_and_app = self._of_type[event.type]
        properties = _PROPERTIES.pack(_BASIC, 0, len(event.body), _WHICH)
        header = self._frame(_HEADER, properties + _TYPE_AND_MODE + _short(event.id) + type_and_app)
        return b"".join([publish, header, *self._body(event.body)])

    def _body(self, body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), self._most):
            yield self._frame(_BODY, body[start : start + self._most])

    def _frame(self, kind: int, payload: bytes) -> bytes:
        return _FRAME.pack(kind, self._channel, len(payload)) + payload + _END
