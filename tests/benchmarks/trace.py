"""A realistic trace: both lanes, numbers that come again as Zipf has it, and attempts that are made again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

_NUMBERS = 30_000
_ZIPF = 0.9
_SHARE_OF_RECHARGES = 0.3
# of an sms, of a recharge: the producer tries again some seconds later
_TRIED_AGAIN = {"sms": 0.2, "recharge": 0.05}
_PAUSE_SECONDS = (2.0, 15.0)
_MOST_ATTEMPTS = 3
# code and how often: asked about, but for the last
_FAILURES = ((None, 30), ("MK:0001", 30), ("NOROUTE", 20), ("EXPIRED", 15), ("NP:1", 2), ("KEYWORD", 3))
NOT_ASKED = "KEYWORD"
SAYS_PORTED = "NP:1"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as a producer sends it."""

    # seconds from the trace's beginning
    at: float
    lane: str
    reference: str
    attempt: int
    mobile: str
    operator: str | None
    failure_code: str | None = None
    # seconds before it is sent; None: the message does not say when the sms failed
    failed_before: float | None = None

    @property
    def task(self) -> str:
        """The task it is for."""
        return "sms.recheck" if self.lane == "sms" else "recharge.precheck"

    def arguments(self) -> dict[str, Any]:
        """What its message says, ``failed_at`` apart."""
        name = "message_id" if self.lane == "sms" else "order_id"
        code = {"failure_code": self.failure_code} if self.failure_code else {}
        return {
            name: self.reference, "mobile": self.mobile, "operator": self.operator, "attempt": self.attempt
        } | code  # fmt: skip


def trace(seed: int, *, seconds: float, per_second: float) -> list[Asked]:
    """Return the requests of so many seconds in the order of sending; the same for the same seed."""
    chance = random.Random(seed)
    weights = list(accumulate((rank + 1) ** -_ZIPF for rank in range(_NUMBERS)))
    numbers = [str(number) for number in chance.sample(range(13_900_000_000, 14_000_000_000), _NUMBERS)]
    asked: list[Asked] = []
    for index in range(round(seconds * per_second)):
        (mobile,) = chance.choices(numbers, cum_weights=weights)
        asked += _attempts(chance, index / per_second, str(index), mobile)
    return sorted((one for one in asked if one.at <= seconds), key=lambda one: one.at)


def _attempts(chance: random.Random, at: float, name: str, mobile: str) -> Iterator[Asked]:
    """A request, and the attempts after it."""
    lane = "recharge" if chance.random() < _SHARE_OF_RECHARGES else "sms"
    operator = chance.choices(("CMCC", "CUCC", "CTCC"), (80, 10, 10))[0]
    codes, weights = zip(*_FAILURES, strict=True)
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        failure: dict[str, Any] = {}
        if lane == "sms":
            failure["failure_code"] = chance.choices(codes, weights)[0]
            failure["failed_before"] = chance.choice((None, chance.uniform(0.0, 3.0)))
        yield Asked(at, lane, f"{lane[0]}{name}", attempt, mobile, operator, **failure)
        if chance.random() >= _TRIED_AGAIN[lane]:
            return
        at += chance.uniform(*_PAUSE_SECONDS)
