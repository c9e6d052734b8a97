"""The fewest look-ups with which a number's requests could have been answered as they were.

Written from docs/rules.md alone: it shares no line with the service. Given are the requests, each with the
moments it was received and decided and the call it was told by was sent, and the provider's log of its
calls. A call can answer a request if it was sent before the request was decided, and

- it was not answered before the request was received: in flight then, or asked later, it is live to it; or
- it was answered before, and its answer may be used as a stored one: younger than the lane's age; for a
  recharge, on the first attempt only; for an sms whose failed channel is the operator that the answer names,
  only if it was asked after the failure (at the latest the receipt), and never where the failure says that
  the number moved; or
- it is the call whose answer the request was given.

The calls that can answer a request lie between two of them, so for each number the fewest that leave none
unanswered are found by taking, in the order of their last, for every request without one its last. A request
for which nothing has to be asked is left out. Whatever was bought beyond that was bought for nobody: while
another call could be waited for, or although an answer was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_AGE_SECONDS = {"recharge": 600.0, "sms": 86400.0}


@dataclass(frozen=True, slots=True)
class Call:
    """The provider was asked for a number: when that was sent, and when answered; POSIX seconds."""

    asked: float
    answered: float
    # whose number it is, as answered
    operator: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request for that number that an answer decided; POSIX seconds."""

    lane: str
    attempt: int
    # the product sold, or the channel that failed
    operator: str | None
    received: float
    decided: float
    # when the call was sent whose answer it was given
    observed: float
    # at the latest the receipt; None for a recharge
    failed: float | None = None
    says_ported: bool = False


def least(requests: Sequence[Request], calls: Sequence[Call]) -> int:
    """Return the fewest of the calls for one number that could have answered its requests."""
    calls = sorted(calls, key=lambda call: call.answered)
    spans = []
    for request in requests:
        own = next((index for index, call in enumerate(calls) if _is_own(call, request)), None)
        able = [index for index, call in enumerate(calls) if index == own or _can_answer(call, request)]
        assert able, f"an answer came from nowhere: {request}"
        spans.append((max(able), min(able)))
    chosen, last = 0, -1
    for end, begin in sorted(spans):
        if begin > last:
            chosen, last = chosen + 1, end
    return chosen


def _is_own(call: Call, request: Request) -> bool:
    return call.asked == request.observed


def _can_answer(call: Call, request: Request) -> bool:
    if call.asked > request.decided:
        return False
    return call.answered >= request.received or _stored_may_answer(call, request)


def _stored_may_answer(call: Call, request: Request) -> bool:
    if request.received - call.asked >= MAX_AGE_SECONDS[request.lane]:
        return False
    if request.lane == "recharge":
        return request.attempt == 1
    if call.operator != request.operator:
        return True
    return not request.says_ported and request.failed is not None and call.asked > request.failed
