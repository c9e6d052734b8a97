"""The bulk reader beside py-amqp's own: whatever arrives, in whatever pieces, both give the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import amqp
import pytest
from amqp.method_framing import frame_handler, frame_writer
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import pyamqp

from worker.rabbitmq_broker import deliveries, transport
from worker.rabbitmq_broker.deliveries import Headers

_FRAME_MAX = 131_072
_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

_names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=40)
    | st.binary(max_size=20)
    | st.integers(0, 2**32).map(lambda at: datetime.fromtimestamp(at, UTC).replace(tzinfo=None))
    | st.decimals(-1000, 1000, places=2),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(_names, some, max_size=3),
    max_leaves=8,
)
_messages = st.builds(
    amqp.Message,
    st.binary(max_size=300) | st.integers(131_000, 270_000).map(lambda size: b"x" * size),
    application_headers=st.none() | st.dictionaries(_names, _values, max_size=6),
    content_type=st.none() | _names,
    content_encoding=st.none() | _names,
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 9),
    correlation_id=st.none() | _names,
    reply_to=st.none() | _names,
    expiration=st.none() | _names,
    type=st.none() | _names,
)
_arguments = st.tuples(_names, st.integers(1, 2**63), st.booleans(), _names, _names)


class _Channel:
    """Notes what it is given, as py-amqp's channels are given it."""

    is_closing = False

    def __init__(self, given: list[Any], number: int) -> None:
        self._given, self._number = given, number

    def dispatch_method(self, signature: tuple[int, int], payload: bytes, content: Any) -> None:
        if signature == (60, 60):
            arguments, _ = amqp.serialization.loads("sLbss", payload, 4)
            self._on_basic_deliver(*arguments, content)
        else:
            self._given.append((self._number, signature, bytes(payload)))

    def _on_basic_deliver(self, *given: Any) -> None:
        *arguments, message = given
        self._given.append((self._number, arguments, bytes(message.body or b""), message.properties))


class _Transport:
    """Has what is to arrive, in pieces; then nothing comes."""

    connected = True

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)
        self._left = b""

    @contextmanager
    def having_timeout(self, _timeout: float | None) -> Iterator[_Transport]:
        yield self

    def recv_into(self, buffer: memoryview) -> int:
        piece = self._left or next(self._pieces, b"")
        if not piece:
            raise BlockingIOError
        size = min(len(buffer), len(piece))
        buffer[:size], self._left = piece[:size], piece[size:]
        return size

    def read_frame(self) -> tuple[int, int, bytes]:
        head = self._exactly(7)
        kind, channel, size = transport.frame_head(head, 0)
        payload = self._exactly(size)
        self._exactly(1)
        return kind, channel, payload

    def _exactly(self, size: int) -> bytes:
        while len(self._left) < size:
            try:
                self._left += next(self._pieces)
            except StopIteration:
                raise TimeoutError from None
        found, self._left = self._left[:size], self._left[size:]
        return found


def _given_by(kind: type[pyamqp.Connection], pieces: list[bytes]) -> list[Any]:
    given: list[Any] = []
    connection: Any = kind()
    connection.transport = _Transport(pieces)
    connection.channels = {number: _Channel(given, number) for number in (1, 2)}
    connection.on_inbound_frame = frame_handler(connection, connection.on_inbound_method)
    with suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0)
    assert (connection.bytes_recv > 0) == bool(pieces)  # or heartbeats would find it dead
    return given


def _written(channel: int, arguments: tuple[Any, ...], message: amqp.Message) -> list[bytes]:
    """The frames of a delivery."""
    out: list[bytes] = []
    writer = frame_writer(
        SimpleNamespace(frame_max=_FRAME_MAX, bytes_sent=0),
        SimpleNamespace(write=lambda data: out.append(bytes(data))),
    )
    writer(1, channel, (60, 60), dumps("sLbss", arguments), message)
    whole, frames = b"".join(out), []
    while whole:
        size = 8 + int.from_bytes(whole[3:7], "big")
        frames.append(whole[:size])
        whole = whole[size:]
    return frames


def _method(channel: int, signature: bytes) -> bytes:
    return b"\x01" + channel.to_bytes(2, "big") + len(signature).to_bytes(4, "big") + signature + b"\xce"


@given(
    deliveries=st.lists(st.tuples(_arguments, _messages), max_size=4),
    others=st.lists(st.sampled_from([_HEARTBEAT, _method(2, b"\x00\x3c\x00\x15\x01a")]), max_size=3),
    data=st.data(),
)
def test_both_readers_give_the_same(
    deliveries: list[tuple[Any, amqp.Message]], others: list[bytes], data: st.DataObject
) -> None:
    frames = [frame for arguments, message in deliveries for frame in _written(1, arguments, message)]
    for other in others:  # of another channel, or of none: at any place between frames
        frames.insert(data.draw(st.integers(0, len(frames))), other)
    arriving = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arriving)), max_size=8)))
    pieces = [
        piece
        for begin, end in zip([0, *cuts], [*cuts, len(arriving)], strict=True)
        if (piece := arriving[begin:end])
    ]
    assert _given_by(transport.Connection, pieces) == _given_by(pyamqp.Connection, pieces)


@given(size=st.integers(0, 200))
def test_a_frame_that_is_not_closed_ends_the_connection(size: int) -> None:
    frames = _written(1, ("tag", 1, False, "", "sms"), amqp.Message(b"x" * size))
    broken = frames[-1][:-1] + b"\x00"
    with pytest.raises(amqp.exceptions.UnexpectedFrame):
        _given_by(transport.Connection, [*frames[:-1], broken, _HEARTBEAT])


def test_who_is_given_a_message_may_wait_for_more_of_them() -> None:
    """As consumers do that declare a queue, or cancel, while messages are on their way."""
    connection: Any = transport.Connection()
    frames = [b"".join(_written(1, ("tag", tag, False, "", "sms"), amqp.Message(b"{}"))) for tag in (1, 2, 3)]
    connection.transport = _Transport([frames[0] + frames[1], frames[2]])
    tags = []

    class Waiting(_Channel):
        def _on_basic_deliver(self, *given: Any) -> None:
            tags.append(given[1])
            if given[1] == 1:
                connection.drain_events(timeout=0)
                connection.drain_events(timeout=0)

    connection.channels = {1: Waiting([], 1)}
    connection.on_inbound_frame = frame_handler(connection, connection.on_inbound_method)
    connection.drain_events(timeout=0)
    assert tags == [1, 2, 3]


def test_who_waits_for_an_answer_has_it_before_the_next_message() -> None:
    """A consumer's callback is noted once the broker has agreed; its first message may come with that."""
    consume_ok = _method(1, b"\x00\x3c\x00\x15\x03tag")
    message = b"".join(_written(1, ("tag", 1, False, "", "sms"), amqp.Message(b"{}")))
    connection: Any = transport.Connection()
    connection.transport = _Transport([consume_ok + message])
    given: list[Any] = []
    looks = []
    connection.more_has_arrived = lambda: looks.append(len(given))
    connection.channels = {1: _Channel(given, 1)}
    connection.on_inbound_frame = frame_handler(connection, connection.on_inbound_method)
    connection.drain_events(timeout=0)
    assert ([signature for _, signature, _ in given], looks) == ([(60, 21)], [1])
    connection.drain_events(timeout=0)
    assert len(given) == 2


def test_what_celery_does_not_write_is_read_by_py_amqp() -> None:
    headers = {"price": Decimal("0.05"), "binary": b"\xff", "list": [1, [None]]}
    frames = _written(1, ("tag", 1, False, "", "sms"), amqp.Message(b"{}", application_headers=headers))
    (given,) = _given_by(transport.Connection, frames)
    assert given[3]["application_headers"] == headers


_constant = st.dictionaries(_names, _values, max_size=8)
_tables = st.builds(
    lambda constant, varied: [{**constant, **one} for one in varied],
    _constant,
    st.lists(
        st.dictionaries(st.sampled_from(["id", "root_id", "expires"]), _values, max_size=3), max_size=12
    ),
)


@given(st.lists(_tables, max_size=3))
def test_what_messages_have_in_common_is_read_as_if_each_were_the_first(
    runs: list[list[dict[str, Any]]],
) -> None:
    headers = Headers()
    for table in chain.from_iterable(runs):
        octets = b"before" + dumps("F", [table])
        (expected,), end = loads("F", octets, 6)
        with suppress(ValueError):  # no text in UTF-8: it is py-amqp's to read
            assert headers.read(octets + b"after", 6) == (expected, end)


def test_headers_of_one_task_are_read_without_looking_at_each() -> None:
    headers, reads = Headers(), []
    for number in range(5):
        octets = dumps("F", [{"task": "sms.recheck", "id": f"{number:036}", "retries": 0, "eta": None}])
        with patch.object(deliveries, "_entry", wraps=deliveries._entry) as entry:
            headers.read(octets, 0)
        reads.append(entry.call_count)
    assert reads[2:] == [1, 1, 1]
