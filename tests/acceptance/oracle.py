"""The decision table once more, typed from the design by hand: it shares no line with the product.

The truth about numbers is the sandbox's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worker.sandbox.subscribers import subscriber

MAX_ATTEMPTS = 3

# a code, the channel that reports it (None: any), and its class in the list of public codes
FAILURES: list[tuple[str | None, str | None, str]] = [
    (None, None, "none"),
    ("MK:0001", None, "absent_subscriber"),
    ("MK0001", None, "absent_subscriber"),
    ("MK00001", None, "absent_subscriber"),
    ("61", "CUCC", "absent_subscriber"),
    ("601", "CTCC", "absent_subscriber"),
    ("UNDELIV_601", "CTCC", "absent_subscriber"),
    ("NOROUTE", None, "no_route"),
    ("MK:0005", None, "barred"),
    ("SGIP:5", "CUCC", "barred"),
    ("705", "CTCC", "barred"),
    ("EXPIRED", None, "unreachable"),
    ("2:54", "CUCC", "unreachable"),
    ("54", "CUCC", "unreachable"),
    ("IA:0054", None, "network"),
    ("TIMEOUT", None, "network"),
    ("UNDELIV", None, "undetermined"),
    ("MK:7777", None, "undetermined"),
    ("what-is-this", None, "undetermined"),
]
NOT_ASKED: list[tuple[str, str | None, str]] = [
    ("KEYWORD", None, "refused"),
    ("keyword", None, "refused"),
    ("TD:0001", None, "refused"),
    ("XA:0123", None, "refused"),
    ("69", "CUCC", "refused"),
    ("SGIP:69", "CUCC", "refused"),
    ("IB:0008", None, "throttled"),
    ("MB1042", None, "throttled"),
    ("BEYONDD", None, "throttled"),
]
PORTED = "NP:1"
_PERMANENT = {"absent_subscriber", "barred", "refused"}


@dataclass(frozen=True)
class Expected:
    """What the ledger and the event must say."""

    decision: str
    reason: str
    target_operator: str | None
    status: str | None
    range_holder: str | None
    current_operator: str | None
    area: str | None
    # whether nothing may be asked for it
    by_rule: bool


def expected(
    lane: str, msisdn: str | None, operator: str | None, *, failure_class: str = "none", attempt: int = 1
) -> Expected:
    """The first row of the table that fits; ``msisdn`` None: its digits are no mobile number."""
    recharge = lane == "recharge"
    if failure_class == "refused":
        return Expected("undeliverable", "refused", None, None, None, None, None, by_rule=True)
    if failure_class == "throttled":
        return Expected("resend", "throttled", None, None, None, None, None, by_rule=True)
    if msisdn is None:
        said = "rejected" if recharge else "undeliverable"
        return Expected(said, "invalid_number", None, "invalid", None, None, None, by_rule=True)
    truth = subscriber(msisdn)
    found: dict[str, Any] = {
        "status": truth.status.value,
        "range_holder": truth.range_holder,
        "current_operator": truth.current_operator,
        "area": truth.area,
        "by_rule": False,
    }
    current = truth.current_operator
    rows = (
        _recharge(truth.status.value, current, operator)
        if recharge
        else _sms(truth.status.value, current, operator, failure_class, attempt)
    )
    said, reason, target = next(result for fits, result in rows if fits)
    return Expected(said, reason, target, **found)


_Rows = list[tuple[bool, tuple[str, str, str | None]]]


def _recharge(status: str, current: str | None, product: str | None) -> _Rows:
    return [
        (status == "invalid", ("rejected", "invalid_number", None)),
        (status == "unknown", ("unverified", "unknown_number", None)),
        (status == "virtual", ("reroute", "virtual", None)),
        (product is None, ("confirmed", "no_product_operator", None)),
        (current == product, ("confirmed", "same_operator", None)),
        (current != product, ("reroute", "other_operator", current)),
    ]


def _sms(status: str, current: str | None, channel: str | None, failure_class: str, attempt: int) -> _Rows:
    return [
        (status == "invalid", ("undeliverable", "invalid_number", None)),
        (status == "unknown", ("undeliverable", "unknown_number", None)),
        (attempt > MAX_ATTEMPTS, ("undeliverable", "attempts_used_up", None)),
        (current != channel, ("reroute", "other_operator", current)),
        (failure_class in _PERMANENT, ("undeliverable", "permanent_failure", None)),
        (current == channel, ("resend", "same_operator", None)),
    ]
