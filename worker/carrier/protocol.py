"""The seam to the provider: ``CarrierLookup``, and what it answers.

Three implementations pass one conformance suite (``tests/contract``): the HTTP client,
the sandbox, and presend's own front door.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec

from worker.portability.records import Status

MAX_BATCH = 1000
"""Numbers one batch call may carry (the provider's document, code -10)."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The provider's word on one number."""

    msisdn: str
    # the provider's code: 0, -2, -3 or -4
    code: int
    status: Status
    # operator codes where the label is known (移动 -> CMCC), else the label as it came
    range_holder: str | None = None
    current_operator: str | None = None
    # 省-市, as it came
    area: str | None = None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A number of a batch that came back without a usable answer; ask it again.

    ``code`` is the item's own code (1, -8, -9 …), or None where the item was missing,
    repeated, contradictory or unreadable.
    """

    msisdn: str
    code: int | None
    reason: str


class FeeType(StrEnum):
    """How an account pays."""

    PREPAID = "prepaid"
    """预付费: the balance is what may still be asked."""
    POSTPAID = "postpaid"
    """后付费: billed afterwards; the balance may be negative."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What ``/balance`` says: look-ups left (negative for a postpaid account in use)."""

    fee_type: FeeType
    balance: int

    @property
    def can_buy(self) -> bool:
        """Whether a look-up would be sold now."""
        return self.fee_type is FeeType.POSTPAID or self.balance > 0


class CarrierLookup(Protocol):
    """Who can tell a number's operator now. Thread-safe; every call is billed per number.

    ``timeout_seconds`` caps the whole call below the implementation's own time-out.

    Raises (see ``worker.errors``): ``TransientFault`` (``NotSent`` or ``AnswerLost``),
    ``AccountFault``, ``RequestRefused``, ``ContractBreach``.
    """

    def lookup(self, msisdn: str, *, timeout_seconds: float | None = None) -> Answer:
        """Ask for one number; code 1 raises ``RequestRefused``."""
        ...

    def lookup_batch(
        self, msisdns: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Answer | Unanswered]:
        """Ask for 1 to 1000 distinct numbers; one entry a number, in the order asked."""
        ...

    def balance(self, *, timeout_seconds: float | None = None) -> Balance:
        """The account's balance, unbilled; a bad key or a disabled account raises ``AccountFault``."""
        ...
