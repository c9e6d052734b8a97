"""Calls to the provider: how long they take, what they bring, what they cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import Histogram

from worker.metrics.registry import REGISTRY, Spread, Tally
from worker.portability.requests import Lane

ANSWERED, REFUSED, LOST = "answered", "refused", "lost"
NO_CODE, OTHER_CODE = "none", "other"
_CODES = frozenset(range(-10, 2))

_seconds = Histogram(
    "presend_provider_request_seconds",
    "One HTTP request to the provider, answered or not, to the answer's last byte",
    ["request"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 30),
    registry=REGISTRY,
)
_calls = Tally(
    "presend_provider_calls",
    "Calls for numbers: answered, refused (nothing was billed), lost (it may have been billed)",
    ["lane", "outcome"],
)
_codes = Tally(
    "presend_provider_codes",
    "Numbers by the code the provider gave them, or their whole call; none: no usable answer",
    ["lane", "code"],
)
_asked = Tally("presend_numbers_asked", "Numbers the provider was asked for", ["lane"])
_billed = Tally("presend_numbers_billed", "Numbers billed, by the codes of their answers", ["lane"])
_unanswered = Tally(
    "presend_numbers_unanswered", "Numbers whose answer was lost: they may have been billed", ["lane"]
)
_numbers = Spread(
    "presend_call_numbers",
    "Numbers in a call to the provider",
    "lane",
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
for _lane in Lane:
    for _counter in (_asked, _billed, _unanswered):
        _counter.add(_lane, by=0)
    for _outcome in (ANSWERED, REFUSED, LOST):
        _calls.add(_lane, _outcome, by=0)


@contextmanager
def timed(request: str) -> Iterator[None]:
    """Take the time of one HTTP request."""
    began = time.perf_counter()
    try:
        yield
    finally:
        _seconds.labels(request).observe(time.perf_counter() - began)


def asked(lane: Lane, numbers: int) -> None:
    """A call is made."""
    _asked.add(lane, by=numbers)
    _numbers.add(lane, (numbers,))


def answered(lane: Lane, codes: Iterable[int | None], *, billed: int, unanswered: int) -> None:
    """A call was answered; ``codes`` holds one a number, None for one without a usable answer."""
    _calls.add(lane, LOST if unanswered else ANSWERED)
    for code, count in Counter(codes).items():
        _codes.add(lane, _label(code), by=count)
    _billed.add(lane, by=billed)
    _unanswered.add(lane, by=unanswered)


def failed(lane: Lane, code: int | None, *, numbers: int, maybe_billed: bool) -> None:
    """A call was not answered, or refused whole."""
    _calls.add(lane, LOST if maybe_billed else REFUSED)
    _codes.add(lane, _label(code), by=numbers)
    if maybe_billed:
        _unanswered.add(lane, by=numbers)


def _label(code: int | None) -> str:
    if code is None:
        return NO_CODE
    return str(int(code)) if code in _CODES else OTHER_CODE
