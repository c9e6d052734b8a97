"""The ledger's calls beside the movements of the provider's balance: what was charged that should not be.

A call is charged at some moment while it is open, so a reading of the balance during a call says nothing of
that call. Spans between readings are joined until none was open at either end; then what the balance fell by
is what the calls within cost. What it fell too far is put down, in this order, to numbers whose answer was
lost, to failed calls charged whole, and what is left is unexplained.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

CLOCKS_APART = timedelta(seconds=0.5)
"""How far the clocks of presend's machines may differ: a call so near to a reading counts as open in it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What ``/balance`` said, at some moment between asking and answer."""

    asked_at: datetime
    answered_at: datetime
    balance: int


@dataclass(frozen=True, slots=True)
class LedgerCall:
    """A call to the provider, as the ledger has it."""

    id: str
    sent_at: datetime
    # no later than this was it charged: its answer, or for a lost one when its time was up; None: it is open
    ended_at: datetime | None
    numbers: int
    # charged for by the answer's codes
    billed: int
    # numbers that may have been charged for without an answer
    lost: int
    # the provider refused it, or it was never sent: nothing of it should be charged
    failed: bool


class Gap(StrEnum):
    """Why a balance moved otherwise than the answers say."""

    LOST_CHARGED = "lost_charged"
    """Numbers whose answer was lost were charged for: the contract says perhaps."""
    FAILURE_CHARGED = "failure_charged"
    """Calls that failed were charged for whole: to be claimed."""
    OVERCHARGED = "overcharged"
    """More was charged than asked: to be claimed."""
    TOPPED_UP = "topped_up"
    """The balance rose."""
    UNDERCHARGED = "undercharged"
    """Less was charged than the codes say: see PRESEND_BILLED_CODES."""

    @property
    def unexplained(self) -> bool:
        """Whether somebody has to ask the provider, or mend a setting."""
        return self not in {Gap.LOST_CHARGED, Gap.TOPPED_UP}


@dataclass(frozen=True, slots=True)
class Finding:
    """One gap, in one span."""

    gap: Gap
    since: datetime
    until: datetime
    # look-ups
    numbers: int
    # the calls it may be put down to, at most :data:`NAMED`
    calls: tuple[LedgerCall, ...] = ()
    # answers in the span that cost nothing by PRESEND_BILLED_CODES: were they charged all the same?
    free_answers: int = 0


@dataclass(frozen=True, slots=True)
class Audit:
    """The ledger beside the balance, from the first reading to the last."""

    since: datetime
    until: datetime
    # of the readings' time, what could be compared; None: a call was open in all but perhaps one of them
    compared: tuple[datetime, datetime] | None
    # spans without an open call at either end, and their calls
    spans: int
    calls: int
    # look-ups charged for by the answers' codes, and numbers whose answer was lost
    billed: int
    lost: int
    # what the balance fell by, top-ups apart
    fell: int
    findings: tuple[Finding, ...]
    # a first span that begins in the middle of calls, and ends: an earlier reading may settle it
    left_out: Unsettled | None
    # a last span whose end is in the middle of calls: it is looked at again by the next audit
    unsettled: Unsettled | None

    @property
    def unexplained(self) -> int:
        """Look-ups that somebody has to ask about."""
        return sum(each.numbers for each in self.findings if each.gap.unexplained)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A span that begins or ends in the middle of calls."""

    since: datetime
    until: datetime
    # those sent within
    calls: int
    billed: int
    fell: int
    # numbers of the calls open at its ends, and of lost ones within: so far both may honestly differ
    unsure: int


NAMED = 20
"""Calls a finding names at most."""


@dataclass(slots=True)
class _Span:
    """What happened since a reading."""

    begin: Reading
    last: Reading
    calls: list[LedgerCall] = field(default_factory=list)
    # of every call; ``calls`` holds those that something may be put down to
    made: int = 0
    billed: int = 0
    free_answers: int = 0
    rose: bool = False
    # numbers of calls that were open at its beginning
    unsure: int = 0

    def add(self, call: LedgerCall) -> None:
        self.made += 1
        self.billed += call.billed
        if call.lost or call.failed:
            self.calls.append(call)
        else:
            self.free_answers += call.numbers - call.billed

    def reach(self, reading: Reading) -> None:
        self.rose = self.rose or reading.balance > self.last.balance
        self.last = reading

    @property
    def fell(self) -> int:
        return self.begin.balance - self.last.balance

    @property
    def lost(self) -> int:
        return sum(call.lost for call in self.calls)

    def unsettled(self, open_at_its_end: Iterable[LedgerCall] = ()) -> Unsettled:
        unsure = self.unsure + self.lost + sum(call.numbers for call in open_at_its_end)
        return Unsettled(
            self.begin.asked_at, self.last.answered_at, self.made, self.billed, self.fell, unsure
        )


def reconcile(readings: Sequence[Reading], calls: Iterable[LedgerCall]) -> Audit | None:
    """Compare; ``calls`` by ``sent_at``, beginning early enough to hold those open at the first reading.

    None where there are not two readings.
    """
    if len(readings) < 2:
        return None
    walk = _Walk(readings[0], iter(calls))
    spans = [span for span in map(walk.to, readings[1:]) if span is not None]
    left_out = spans.pop(0).unsettled() if spans and spans[0].unsure else None
    rest = walk.rest()
    findings = [
        *(_beyond_doubt(left_out) if left_out else ()),
        *itertools.chain.from_iterable(map(_gaps, spans)),
        *(_beyond_doubt(rest) if rest else ()),
    ]
    top_ups = sum(each.numbers for each in findings if each.gap is Gap.TOPPED_UP)
    return Audit(
        since=readings[0].asked_at,
        until=readings[-1].answered_at,
        compared=(spans[0].begin.asked_at, spans[-1].last.answered_at) if spans else None,
        spans=len(spans),
        calls=sum(span.made for span in spans),
        billed=sum(span.billed for span in spans),
        lost=sum(span.lost for span in spans),
        fell=sum(span.fell for span in spans) + top_ups,
        findings=tuple(findings),
        left_out=left_out,
        unsettled=rest,
    )


class _Walk:
    """Goes along readings and calls together."""

    def __init__(self, first: Reading, calls: Iterator[LedgerCall]) -> None:
        self._calls = calls
        self._next = next(calls, None)
        self._open: list[LedgerCall] = []
        before = list(self._until(first))
        self._note_open(before, first)
        self._span = self._begun(first)

    def to(self, reading: Reading) -> _Span | None:
        """Go on to a reading; return the span that it ends, if no call is open in it.

        The first span alone may have begun in the middle of calls: then it is ``unsure``.
        """
        added = list(self._until(reading))
        for call in added:
            self._span.add(call)
        self._span.reach(reading)
        self._note_open(added, reading)
        if self._open:
            return None
        span, self._span = self._span, self._begun(reading)
        return span

    def rest(self) -> Unsettled | None:
        """What the last reading left open."""
        span = self._span
        if span.last is span.begin:
            return None
        return span.unsettled(open_at_its_end=self._open)

    def _begun(self, reading: Reading) -> _Span:
        return _Span(reading, reading, unsure=sum(call.numbers for call in self._open))

    def _until(self, reading: Reading) -> Iterator[LedgerCall]:
        """The calls sent before a reading's answer, each once."""
        end = reading.answered_at + CLOCKS_APART
        while self._next is not None and self._next.sent_at <= end:
            yield self._next
            self._next = next(self._calls, None)

    def _note_open(self, added: Iterable[LedgerCall], reading: Reading) -> None:
        begin = reading.asked_at - CLOCKS_APART
        self._open = [
            call for call in (*self._open, *added) if call.ended_at is None or call.ended_at >= begin
        ]


def _gaps(span: _Span) -> Iterator[Finding]:
    """What the balance moved by beyond the answers' codes, put down to what may have caused it."""
    since, until = span.begin.asked_at, span.last.answered_at
    left = span.fell - span.billed
    if left < 0:
        gap = Gap.TOPPED_UP if span.rose else Gap.UNDERCHARGED
        yield Finding(gap, since, until, -left)
        return
    lost = [call for call in span.calls if call.lost]
    if left and lost:
        numbers = min(left, span.lost)
        yield Finding(Gap.LOST_CHARGED, since, until, numbers, tuple(lost[:NAMED]))
        left -= numbers
    charged = _charged_whole([call for call in span.calls if call.failed], left)
    if charged:
        numbers = sum(call.numbers for call in charged)
        yield Finding(Gap.FAILURE_CHARGED, since, until, numbers, tuple(charged[:NAMED]))
        left -= numbers
    if left:
        yield Finding(Gap.OVERCHARGED, since, until, left, free_answers=span.free_answers)


def _charged_whole(failed: Iterable[LedgerCall], charged: int) -> list[LedgerCall]:
    """Failed calls that may have been charged, the largest that fit first."""
    found = []
    for call in sorted(failed, key=lambda call: -call.numbers):
        if call.numbers <= charged:
            found.append(call)
            charged -= call.numbers
    return found


def _beyond_doubt(rest: Unsettled) -> Iterator[Finding]:
    """A span between open calls speaks only where it differs by more than these can account for."""
    too_far = rest.fell - rest.billed - rest.unsure
    if too_far > 0:
        yield Finding(Gap.OVERCHARGED, rest.since, rest.until, too_far)
