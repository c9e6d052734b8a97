"""What a provider may do wrong, and what has to become of a batch of a thousand that meets it.

``ONCE`` are faults of one call, or of one number in it; ``LASTING`` are those that go on. Not
among them: codes that the provider's document does not have, which the sandbox cannot send.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from worker.sandbox.faults import Fault

NUMBERS = 1000
INDEX = 617
"""Of the number, and of the item, that the fault is about."""
TIMEOUTS = (2.0, 3.0)
"""Seconds presend waits for one number's answer, and for a batch's."""

_AS_OTHERS = ("resend", "same_operator")
_INVALID = ("undeliverable", "invalid_number")
_UNKNOWN = ("undeliverable", "unknown_number")
_SOME_MOBILE = "the number at fault"
_LATE = TIMEOUTS[1] + 1


@dataclass(frozen=True)
class Case:
    """A fault and all that must be true after it."""

    name: str
    fault: Fault
    # the batch's calls by lookup_call.outcome
    calls: dict[str, int]
    # how the number at fault is decided; None: it is a dead letter
    at_fault: tuple[str, str] | None = _AS_OTHERS
    # in the dead letter's reason
    reason: str = ""
    # numbers billed a second time, and numbers listed as perhaps billed in vain
    billed_again: int = 0
    listed: int = 0
    closes_gate: bool = False
    # a lost call makes the lane pause
    breaks: bool = False
    # a fault of one number goes on until that number is settled; else until it has struck once
    stays: bool = False

    def ordered(self, number: str) -> Fault:
        """The fault, about this number."""
        return msgspec.structs.replace(self.fault, mobile=number) if self.of_number else self.fault

    @property
    def of_number(self) -> bool:
        return self.fault.mobile is not None


def _whole(code: int, calls: dict[str, int], **more: object) -> Case:
    return Case(f"code {code}", Fault(kind="code", code=code, on="carrier_batch"), calls, **more)  # type: ignore[arg-type]


def _item(code: int, calls: dict[str, int], **more: object) -> Case:
    return Case(
        f"code {code} for one number",
        Fault(kind="item_code", mobile=_SOME_MOBILE, code=code),
        calls,
        **more,  # type: ignore[arg-type]
    )


def _lost(name: str, fault: Fault, *, billed_again: int = NUMBERS) -> Case:
    """The whole answer is lost: nobody knows what was billed, so all is listed and bought again."""
    calls = {"lost": 1, "answered": 1}
    return Case(name, _of_batches(fault), calls, billed_again=billed_again, listed=NUMBERS, breaks=True)


def _one_lost(name: str, kind: str) -> Case:
    """One number's answer is lost; it alone is bought again."""
    fault = Fault(kind=kind, index=INDEX, on="carrier_batch")  # type: ignore[arg-type]
    return Case(name, fault, {"lost": 1, "answered": 1}, billed_again=1, listed=1, breaks=True)


def _harmless(name: str, fault: Fault) -> Case:
    return Case(name, _of_batches(fault), {"answered": 1})


def _of_batches(fault: Fault) -> Fault:
    return msgspec.structs.replace(fault, on="carrier_batch")


_ONCE_MORE = {"refused": 1, "answered": 1}
_HALVED = {"refused": 1, "answered": 2}
_ASKED_ALONE = {"answered": 2}

ONCE = [
    # every code for the whole batch
    _whole(1, _HALVED),
    _whole(-1, _ONCE_MORE, closes_gate=True),
    _whole(-2, _HALVED),
    _whole(-3, _HALVED),
    _whole(-4, _HALVED),
    # the balance would pay for them: what it is sure to pay for is asked at once
    _whole(-5, _HALVED),
    _whole(-6, _ONCE_MORE, closes_gate=True),
    _whole(-7, _ONCE_MORE, breaks=True),
    _whole(-8, _ONCE_MORE, breaks=True),
    _whole(-9, _HALVED),
    _whole(-10, _ONCE_MORE, breaks=True),
    # every code for one number of the batch
    _item(1, _ASKED_ALONE, at_fault=_INVALID, stays=True),
    _item(-1, _ASKED_ALONE, closes_gate=True),
    _item(-2, {"answered": 1}, at_fault=_INVALID),
    _item(-3, {"answered": 1}, at_fault=_INVALID),
    _item(-4, {"answered": 1}, at_fault=_UNKNOWN),
    _item(-5, _ASKED_ALONE, closes_gate=True),
    _item(-6, _ASKED_ALONE, closes_gate=True),
    _item(-7, _ASKED_ALONE),
    _item(-8, _ASKED_ALONE),
    _item(-9, _ASKED_ALONE),
    _item(-10, _ASKED_ALONE),
    # any batch with the number in it is refused
    Case(
        "code 1 because of one number",
        Fault(kind="poison", mobile=_SOME_MOBILE, code=1),
        # halved ten times: the half without it is answered each time, and so in the end is the number
        {"refused": 10, "answered": 11},
        at_fault=_INVALID,
        stays=True,
    ),
    Case(
        "code -9 because of one number",
        Fault(kind="poison", mobile=_SOME_MOBILE, code=-9),
        {"refused": 13, "answered": 10},
        at_fault=None,
        reason="refused this number with code -9 3 times",
        stays=True,
    ),
    # no answer, or none that can be used
    _lost("no answer", Fault(kind="hang")),
    _lost("no answer, not worked", Fault(kind="hang", processed=False), billed_again=0),
    _lost("reset", Fault(kind="reset")),
    _lost("reset, not worked", Fault(kind="reset", processed=False), billed_again=0),
    _lost("connection closed", Fault(kind="close")),
    _lost("a page of HTML, status 502", Fault(kind="status", status=502)),
    _lost("a page of HTML, status 500", Fault(kind="status", status=500)),
    _lost("a page of HTML, status 200", Fault(kind="status", status=200)),
    _lost("sent elsewhere, status 302", Fault(kind="status", status=302)),
    Case(
        "too many requests, status 429",
        Fault(kind="status", status=429, processed=False, on="carrier_batch"),
        _ONCE_MORE,
        breaks=True,
    ),
    _lost("connection closed half way", Fault(kind="truncate")),
    _lost("half the JSON", Fault(kind="cut")),
    _lost("dripping past the time-out", Fault(kind="drip", seconds=_LATE / 10)),
    _lost("an answer after the time-out", Fault(kind="slow", seconds=_LATE)),
    _harmless("dripping", Fault(kind="drip", seconds=0.05)),
    # an answer that is not quite one
    _one_lost("one item missing", "drop"),
    _one_lost("one item twice", "duplicate"),
    _one_lost("one item of another number", "foreign"),
    _one_lost("one item without its result", "bare"),
    _harmless("one item more", Fault(kind="extra", index=INDEX)),
    _harmless("items in another order", Fault(kind="reorder")),
    _harmless("commas before brackets", Fault(kind="trailing_comma")),
]


@dataclass(frozen=True)
class Lasting:
    """A fault that goes on for a while; None: connections are refused."""

    name: str
    fault: Fault | None = field(default=None)


LASTING = [
    Lasting("connections refused"),
    Lasting("no answers", Fault(kind="hang", calls=None)),
    Lasting("status 502", Fault(kind="status", status=502, calls=None)),
    Lasting("resets", Fault(kind="reset", calls=None)),
    Lasting("code -8", Fault(kind="code", code=-8, calls=None)),
]
