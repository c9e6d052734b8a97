"""Which events share a message: each has its own, or up to so many of one type go as a CloudEvents batch.

A subscriber's queue is the broker's ceiling, and it counts messages. An event's bytes are the same in both
forms, and the first byte of a body tells them apart. An event sent again may come in other company.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from worker.portability.events import Event

BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
"""A JSON array of events (CloudEvents 1.0, JSON batch format)."""

_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


def together(events: Iterable[Event], most: int) -> list[Sequence[Event]]:
    """Return the events of each message: of one type, at most so many, in the order they came."""
    if most == 1:
        return [(event,) for event in events]
    of_type: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        of_type[event.type].append(event)
    return [each[begin : begin + most] for each in of_type.values() for begin in range(0, len(each), most)]


def batch_of(bodies: Iterable[bytes]) -> bytes:
    """Return the body of a batch, which is large, so it is put together in one go."""
    elements = list(bodies)
    elements[0] = b"[" + elements[0]
    elements[-1] += b"]"
    return b",".join(elements)


def bodies_in(body: bytes) -> list[bytes]:
    """Return the events in a message's body, a batch or not, each with the bytes it was built with."""
    return [bytes(event) for event in _elements(body)] if body.startswith(b"[") else [body]
