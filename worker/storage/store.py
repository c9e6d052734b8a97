"""The seam between the pipeline and the database: what each step of a batch asks for.

``postgres_store`` is presend's own. Every method is safe to call again; ``StorageUnavailable`` where the
database cannot be had now.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from worker.portability.records import CheckedRequest, PortChange, PortRecord
from worker.portability.requests import Lane, RequestKey
from worker.storage.breaker import Breaker
from worker.storage.calls import Call, EarlyClaim, EndedCall
from worker.storage.dead_letters import DeadLetter
from worker.storage.gate import ClosedGate


@dataclass(frozen=True, slots=True)
class Known:
    """What is known before anything is asked."""

    closed_gate: ClosedGate | None
    breaker: Breaker | None
    # requests decided before
    rows: Mapping[RequestKey, CheckedRequest]
    records: Mapping[str, PortRecord]
    # why items were parked before, by the ids of their dead letters
    parked: Mapping[int, str] = field(default_factory=dict)
    # a claim made along with the look, before all of this was read
    claimed: EarlyClaim | None = None

    @property
    def may_ask(self) -> bool:
        """Whether the account can buy and the lane's calls do not fail."""
        return self.closed_gate is None and self.breaker is None


@dataclass(frozen=True, slots=True)
class Claim:
    """What came of claiming numbers."""

    # numbers that are ours to buy
    held: set[str]
    # numbers the day's budget has no room for
    unaffordable: set[str]
    # stored records, read after the claim: whoever held a number until just now has stored its record
    records: Mapping[str, PortRecord]
    # when the calls were sent that hold the other numbers
    holders: Mapping[str, datetime]
    # requests decided since the batch looked for them
    rows: Mapping[RequestKey, CheckedRequest]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a batch stores, in one transaction."""

    batch_id: str
    lane: Lane
    decided_at: datetime
    rows: Sequence[CheckedRequest] = ()
    # what the provider answered, as records
    learned: Sequence[PortRecord] = ()
    ended: Sequence[EndedCall] = ()
    # the call that claimed the numbers; None where nothing was claimed
    call_id: str | None = None
    # the dead letters that these requests may have become in the hands of another worker, by their ids
    letters: Mapping[int, RequestKey] = field(default_factory=dict)
    # numbers of ``learned`` that had no record once they were held
    without_record: Collection[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settlement met."""

    # rows of keys that were decided before, by another worker or by an earlier run of this settlement whose
    # COMMIT was not answered: those stand
    decided_before: Mapping[RequestKey, CheckedRequest] = field(default_factory=dict)
    # changes of operator against the records as they stood
    changes: Sequence[PortChange] = ()


class Store(Protocol):
    """What the pipeline asks of the database."""

    def look_up(
        self,
        account: str,
        lane: Lane,
        keys: Collection[RequestKey],
        msisdns: Collection[str],
        letters: Collection[int] = (),
        *,
        early: EarlyClaim | None = None,
    ) -> Known:
        """What is known of these requests and numbers, and whether the provider may be asked.

        ``letters`` are the ids under which items would be parked that may have been parked before; what is
        told may be of more items of their messages. ``early`` is claimed first where the gate is open, the
        lane does not fail, the request has no row and no dead letter, its number no young record and no other
        call, and no daily budget is set; who then needs no call lets go of it.
        """

    def claim(
        self, call: Call, keys: Mapping[str, Sequence[RequestKey]], *, overtaken: Collection[str]
    ) -> Claim:
        """Name a call and hold the numbers of ``keys`` that nobody else holds.

        ``keys`` are the requests by their numbers; ``overtaken`` numbers are held whoever has them.
        """

    def let_go(self, call_id: str, msisdns: Collection[str], *, forget_call: bool) -> None:
        """Let go of numbers that need not be bought after all; overtaken ones go back to their calls."""

    def split(self, call: Call, msisdns: Sequence[str], *, from_id: str) -> set[str]:
        """Name a further call for some of the numbers that ``from_id`` holds; return those it still held.

        The others were taken over, or given up because the call's time was up.
        """

    def give_up_dead_calls(self) -> int:
        """Let go of the numbers of calls that can no longer be answered; return how many."""

    def close_gate(self, account: str, *, by: str, reason: str) -> bool:
        """Close the account's gate; return whether it was open."""

    def may_probe(self, account: str, lane: Lane, *, hold_seconds: float) -> datetime | None:
        """Until when this worker may make the one call that tries a failing provider; None: it may not."""

    def call_ended(self, account: str, lane: Lane, *, lost: bool, probe: datetime | None = None) -> None:
        """Note for every worker of the lane whether the provider answers.

        ``probe`` is what ``may_probe`` said, where this was the call that tried it: it ends that probe,
        and a call that was under way longer ends nobody's.
        """

    def settle(self, settlement: Settlement) -> Settled:
        """Store a batch; returns once it is stored."""

    def mark_emitted(self, batch_id: str, at: datetime) -> None:
        """Say that the broker has confirmed every event of a batch."""

    def park(self, letters: Sequence[DeadLetter]) -> Mapping[str, CheckedRequest]:
        """Store dead letters; returns once they are stored.

        Those of requests that are decided are not: their rows are returned, by the letters' ids.
        """

    def relay(
        self,
        send: Callable[[Sequence[CheckedRequest], Sequence[PortChange]], None],
        *,
        older_than_seconds: float,
        most: int,
        now: Callable[[], datetime],
    ) -> int:
        """Hand batches to ``send`` whose events nobody saw confirmed, mark them; return how many."""

    def give_up(self) -> None:
        """Shutdown: what waits for the database to come back waits no longer."""
