"""Events out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from worker.metrics.registry import Tally
from worker.portability.events import Event

TYPES = (
    "recharge.confirmed",
    "recharge.reroute",
    "recharge.rejected",
    "recharge.unverified",
    "sms.resend",
    "sms.reroute",
    "sms.undeliverable",
    "number.ported",
)
"""All there are."""

_confirmed = Tally(
    "presend_events_confirmed", "Events the broker confirmed, those sent again included", ["type"]
)
_unconfirmed = Tally(
    "presend_events_unconfirmed", "Events the broker did not confirm in time, left to the relay", ["type"]
)
_unrouted = Tally(
    "presend_events_unrouted",
    "Events that came back because no queue is bound for them; they count as confirmed, too",
    ["type"],
)
_relayed = Tally("presend_batches_relayed", "Batches whose events were sent again by the relay", [])
_relayed.add(by=0)
for _type in TYPES:
    for _counter in (_confirmed, _unconfirmed, _unrouted):
        _counter.add(_type, by=0)  # or the first one would be no increase


def sent(events: Iterable[Event], *, left: Iterable[Event] = ()) -> None:
    """Events were sent; of those ``left`` nobody knows whether the broker has them."""
    unconfirmed = Counter([event.type for event in left])
    _confirmed.add_all(Counter([event.type for event in events]) - unconfirmed)
    _unconfirmed.add_all(unconfirmed)


def unrouted(types: Iterable[str]) -> None:
    """Events of these types came back."""
    _unrouted.add_all(Counter(types))


def relayed(batches: int) -> None:
    """The relay has sent so many batches' events again."""
    _relayed.add(by=batches)
