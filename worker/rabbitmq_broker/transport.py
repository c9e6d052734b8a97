"""kombu's transport over :mod:`worker.rabbitmq_broker.deliveries`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from amqp.exceptions import UnexpectedFrame
from kombu.transport import pyamqp

from worker.rabbitmq_broker.deliveries import END, METHOD, CutOffError, delivery, frame_head

_AT_ONCE = 65_536
"""Octets read at once: about a hundred messages, which are a few milliseconds of work."""
_SMALLEST_FRAME = 8
_acknowledgement = struct.Struct(">BHIHHQBB").pack
_BASIC, _ACK = 60, 80


class Channel(pyamqp.Channel):
    """A channel that can hold acknowledgements back for a moment, to write them together."""

    _held_back: list[bytes] | None = None

    @contextmanager
    def acknowledging_together(self) -> Iterator[None]:
        """Write what is acknowledged meanwhile at its end, at once."""
        self._held_back = []
        try:
            yield
        finally:
            frames, self._held_back = self._held_back, None
            if frames:
                self.connection.transport.write(b"".join(frames))

    def basic_ack(self, delivery_tag: int, multiple: bool = False, argsig: str = "Lb") -> Any:
        """See py-amqp."""
        if self._held_back is None:
            return super().basic_ack(delivery_tag, multiple, argsig)
        frame = _acknowledgement(METHOD, self.channel_id, 13, _BASIC, _ACK, delivery_tag, multiple, END)
        self._held_back.append(frame)
        return None


class Connection(pyamqp.Connection):
    """A connection that reads what has arrived at once. Used by one thread, as py-amqp's is."""

    Channel = Channel

    more_has_arrived: Callable[[], None] | None = None
    """Called where frames are left that were read already: no poller would tell of them."""

    _arrived = b""
    # where the next frame begins in it
    _at = 0
    # what the socket is read into: a new piece for each read, cut to what came, would leave holes in the heap
    _buffer = memoryview(b"")

    def connect(self, callback: Any = None) -> Any:
        """See py-amqp."""
        self._arrived, self._at = b"", 0
        return super().connect(callback)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Dispatch the frames that have arrived; wait for some where there are none.

        ``TimeoutError`` if none came in time.
        """
        if self.ssl:
            return super().blocking_read(timeout)
        while not self._dispatch():
            with self.transport.having_timeout(timeout) as socket:
                self._receive(socket)
        return True

    def _receive(self, socket: Any) -> None:
        if not self._buffer:
            self._buffer = memoryview(bytearray(_AT_ONCE))
        try:
            size = socket.recv_into(self._buffer)
        except TimeoutError:
            raise
        except BlockingIOError:
            raise TimeoutError from None
        except OSError:
            self.transport.connected = False
            raise
        if not size:
            self.transport.connected = False
            raise OSError("the broker closed the connection")
        self._arrived, self._at = self._arrived[self._at :] + self._buffer[:size], 0

    def _dispatch(self) -> bool:
        """Give deliveries to whom they concern, up to an answer; whether anything was given.

        After an answer somebody waits for it, who may have to do something before what comes next: note the
        callback of a consumer, say. Who is given something may ask for more meanwhile, so it is gone before.
        """
        any_was = False
        while (left := len(self._arrived) - self._at) >= _SMALLEST_FRAME:
            data, start = self._arrived, self._at + 7
            kind, number, size = frame_head(data, self._at)
            if left <= 7 + size:
                break
            stop = start + size
            if data[stop] != END:
                raise UnexpectedFrame(f"a frame is closed by {data[stop]:#04x}, not by {END:#04x}")
            channel = (self.channels or {}).get(number)  # type: ignore[attr-defined]
            if kind == METHOD and channel is not None and not channel.is_closing:
                try:
                    delivered = delivery(data, start, stop, number)
                except CutOffError:
                    break
                if delivered is not None:
                    self._at = delivered.end
                    self.bytes_recv += 1  # heartbeats look whether it changes
                    channel._on_basic_deliver(*delivered.arguments, delivered.message)
                    any_was = True
                    continue
            self._at = stop + 1
            if self.on_inbound_frame((kind, number, data[start:stop])):
                if self.more_has_arrived is not None and self._at < len(self._arrived):
                    self.more_has_arrived()
                return True
        return any_was


class Transport(pyamqp.Transport):
    """RabbitMQ, for kombu."""

    Connection = Connection

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """See kombu."""
        super().register_with_event_loop(connection, loop)
        # not call_soon, which in a callback of the loop's would wait for something to arrive
        connection.more_has_arrived = partial(loop.call_later, 0, self.on_readable, connection, loop)
