"""A batch on its way through the pipeline: who waits, what was found, what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from worker.batching import BatchOutcome, Postponed, Waiter
from worker.portability.records import CheckedRequest, Finding, NoAnswer, PortChange
from worker.portability.requests import Lane, RequestKey
from worker.storage.ids import new_id

CONFLICT = (
    "the same source, reference and attempt was used before with another number or operator, "
    "or its number was erased since: "
    "give each request its own reference, and count attempt up when the same one is sent again"
)

STOPPED_SECONDS = 1.0
"""How long an sms lane pauses before it looks again whether the gate is open and the budget renewed, and a
contradiction waits before it looks which one got the row: redelivered, they may come in another order."""


@dataclass(slots=True)
class Batch:
    """One lane's requests, decided together in one transaction."""

    id: str
    lane: Lane
    now: datetime
    # requests of one key are decided once; the first one speaks for the others
    by_key: dict[RequestKey, list[Waiter]] = field(default_factory=dict)
    # requests whose numbers the provider must be asked for
    asking: list[Waiter] = field(default_factory=list)
    findings: dict[RequestKey, Finding | NoAnswer] = field(default_factory=dict)
    # numbers that had no record once they were held
    without_record: set[str] = field(default_factory=set)
    # the provider call that answered, where this request bought it
    call_ids: dict[RequestKey, str] = field(default_factory=dict)
    # rows this batch decides
    rows: dict[RequestKey, CheckedRequest] = field(default_factory=dict)
    # rows of the same keys that were decided before
    known_rows: dict[RequestKey, CheckedRequest] = field(default_factory=dict)
    changes: list[PortChange] = field(default_factory=list)
    outcome: BatchOutcome = field(default_factory=BatchOutcome)
    # whether a request may have become a dead letter in the hands of another worker
    may_be_parked: bool = False
    # whether a request waits again, for another's call or after its own
    waited: bool = False
    # whether records are read only once the numbers are held
    records_later: bool = False

    @classmethod
    def of(cls, waiters: Sequence[Waiter], now: datetime) -> Batch:
        """Gather requests by key; one that contradicts an earlier one of its key waits for that one's row."""
        batch = cls(new_id(), waiters[0].request.lane, now)
        for waiter in waiters:
            group = batch.by_key.setdefault(waiter.key, [])
            batch.may_be_parked = batch.may_be_parked or waiter.letter_id is not None
            batch.waited = batch.waited or waiter.bought > 0 or waiter.sharing_since is not None
            if group and not group[0].request.same_question(waiter.request.msisdn, waiter.request.operator):
                batch.outcome.postponed.append(Postponed(waiter, STOPPED_SECONDS))
            else:
                group.append(waiter)
                waiter.bought = group[0].bought = max(waiter.bought, group[0].bought)
        return batch

    def waiters(self) -> Iterable[Waiter]:
        """One waiter a key."""
        return (group[0] for group in self.by_key.values())

    def wanted(self) -> list[str]:
        """Numbers the provider must be asked for, each once, in the order in which they came."""
        asking = (waiter.request.msisdn for waiter in self.asking)
        return list(dict.fromkeys(msisdn for msisdn in asking if msisdn is not None))

    def found(self, waiter: Waiter, finding: Finding | NoAnswer) -> None:
        """Note what was found for a request."""
        self.findings[waiter.key] = finding

    def repeat(self, waiter: Waiter, row: CheckedRequest) -> None:
        """Give a request the answer its key got before, unless it asks something else now."""
        if waiter.request.same_question(row.msisdn, row.asked_operator):
            self.known_rows[row.key] = row
        else:
            self.reject(waiter, CONFLICT)

    def bought(self, waiter: Waiter, times: int) -> None:
        """Count purchases for every request of this waiter's key: any may speak for the others next."""
        bought = waiter.bought + times
        for one in self.by_key[waiter.key]:
            one.bought = bought

    def postpone(self, waiter: Waiter, seconds: float) -> None:
        """Let every request of this waiter's key wait again."""
        self.outcome.postponed += [Postponed(one, seconds) for one in self.by_key.pop(waiter.key)]

    def park_again(self, parked: Mapping[int, str]) -> None:
        """Give up again the requests that were, when their messages came before: the first outcome stands."""
        for key, group in list(self.by_key.items()) if parked else ():
            for waiter in [one for one in group if one.letter_id in parked]:
                group.remove(waiter)
                self.outcome.rejected.append((waiter, parked[waiter.letter_id or 0]))
            if not group:
                del self.by_key[key]

    def stop(self, waiter: Waiter, why: NoAnswer) -> None:
        """Nothing may be bought for a request now: a recharge is told at once, an sms waits."""
        if self.lane is Lane.SMS:
            self.postpone(waiter, STOPPED_SECONDS)
            self.outcome.pause_seconds = STOPPED_SECONDS
        else:
            self.found(waiter, why)

    def reject(self, waiter: Waiter, reason: str) -> None:
        """Give up every request of this waiter's key, with a reason."""
        self.outcome.rejected += [(one, reason) for one in self.by_key.pop(waiter.key)]

    def leave_asking(self) -> None:
        """Take out the requests that need a call, so that the others are told without waiting for it."""
        for waiter in self.asking:
            self.outcome.still_asking += self.by_key.pop(waiter.key)
        self.asking = []

    def decided(self) -> list[CheckedRequest]:
        """Pair every request with its row; return the rows, those decided before included."""
        rows = {**self.rows, **self.known_rows}
        self.outcome.decided = [(waiter, row) for key, row in rows.items() for waiter in self.by_key[key]]
        return list(rows.values())

    def letters(self) -> dict[int, RequestKey]:
        """The dead letters that the requests decided here may have become, by their ids."""
        if not self.may_be_parked:
            return {}
        waiters = ((one.letter_id, key) for key in self.rows for one in self.by_key[key])
        return {letter_id: key for letter_id, key in waiters if letter_id is not None}
