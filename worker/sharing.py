"""Sharing: a number is bought once for everyone who waits for it, on all workers and lanes.

Before a call its numbers are held in ``in_flight``. A number that another call holds is waited for; a
recharge waits only so long, then takes it over. Postgres owns the claims, so nothing is bought twice
because a cache forgot.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from worker.batch import Batch
from worker.batching import Waiter
from worker.portability.records import NoAnswer
from worker.portability.requests import Lane, RequestKey
from worker.portability.rules import Rules
from worker.storage.calls import Call, EarlyClaim
from worker.storage.ids import new_id
from worker.storage.store import Claim, Known, Store

POLL_SECONDS = 0.02
"""After so long it is looked again whether the call that others wait for has ended."""
_SELDOM = 0.1
"""While records answer no larger share of an sms lane's numbers, it costs less to hold some in vain than to
read every number's record twice, before and after."""
_MEMORY = 0.1
"""What the last batch counts in that share."""
_LONG_WAIT_SECONDS = 1.0
"""Past this, the call that others wait for is looked at: its process may have died."""


@dataclass(slots=True)
class Sharing:
    """Decides, with every other worker, who buys a number."""

    store: Store
    rules: Rules
    provider: str
    # how long a recharge waits for another call before it buys itself
    patience_seconds: float
    # how long a call for so many numbers may hold them
    hold_seconds: Callable[[int], float]
    # a number held in vain would be a look-up less of a day's budget, while it is held
    budgeted: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    _looked_at: float = 0.0
    # share of the numbers of an sms batch that records answered, of late
    _answered: float = 0.0

    def early(self, batch: Batch) -> EarlyClaim | None:
        """The claim that can go along with the look: that of a batch which is one request, come just now.

        For it somebody waits alone, and each round trip to Postgres is a part of that wait.
        """
        if len(batch.by_key) != 1:
            return None
        (waiter,) = batch.waiters()
        request = waiter.request
        if request.msisdn is None or waiter.came_before or waiter.shares_from is not None:
            return None
        if self.rules.finding(request, None, now=batch.now) is not None:
            return None
        return EarlyClaim(
            self._call(batch, 1),
            waiter.key,
            request.msisdn,
            self.rules.freshness.answers_since(request, now=batch.now),
            waiter.letter_id,
        )

    def records_later(self, batch: Batch) -> bool:
        """Whether to hold a batch's numbers first, and then to read their records, once."""
        seldom = self._answered <= _SELDOM and not self.budgeted
        return seldom and batch.lane is Lane.SMS and not batch.waited

    def records_answered(self, batch: Batch, answered: int, numbers: int) -> None:
        """Note how many of a batch's numbers their records answered."""
        if batch.lane is Lane.SMS and numbers:
            self._answered += _MEMORY * (answered / numbers - self._answered)

    def leave(self, known: Known) -> None:
        """Let go of what was claimed along with the look: nothing has to be asked."""
        early = known.claimed
        if early is not None:
            self.store.let_go(early.call.id, [early.msisdn], forget_call=True)

    def claim(self, batch: Batch, known: Known) -> tuple[Call, set[str]]:
        """Hold the numbers of a batch that nobody buys yet, and return the call to be made for them.

        Requests for the others are postponed; requests answered meanwhile get their finding.
        """
        early = known.claimed
        if early is not None:
            held = {early.msisdn}
            batch.without_record = held.difference(known.records)
            return early.call, held
        keys: dict[str, list[RequestKey]] = {}
        for waiter in batch.asking:
            if waiter.request.msisdn is not None:
                keys.setdefault(waiter.request.msisdn, []).append(waiter.key)
        call = self._call(batch, len(keys))
        claim = self.store.claim(call, keys, overtaken=self._overtaken(batch))
        needless = self._answer_from(batch, claim)
        if batch.records_later:
            self.records_answered(batch, len(needless), len(keys))
        self._wait_for_others(batch, claim)
        held = claim.held - needless
        if needless:
            self.store.let_go(call.id, needless, forget_call=not held)
        batch.without_record = held.difference(claim.records)
        return replace(call, numbers=len(held)), held

    def _call(self, batch: Batch, numbers: int) -> Call:
        return Call(
            new_id(), batch.id, batch.lane, self.provider, self.now(), numbers, self.hold_seconds(numbers)
        )

    def _overtaken(self, batch: Batch) -> set[str]:
        if batch.lane is not Lane.RECHARGE:
            return set()
        now = self.clock()
        return {
            waiter.request.msisdn
            for waiter in batch.asking
            if waiter.request.msisdn is not None
            and waiter.sharing_since is not None
            and now - waiter.sharing_since >= self.patience_seconds
        }

    def _answer_from(self, batch: Batch, claim: Claim) -> set[str]:
        """Answer what the records answer by now; return the numbers that are held needlessly."""
        if not claim.records:  # nor rows: everything stands as it did when the batch looked
            return set()
        asking, batch.asking = batch.asking, []
        for waiter in asking:
            row = claim.rows.get(waiter.key)
            if row is not None:
                batch.repeat(waiter, row)
                continue
            record = claim.records.get(waiter.request.msisdn or "")
            finding = self.rules.finding(
                waiter.request, record, now=batch.now, shares_from=waiter.shares_from
            )
            if finding is None:
                batch.asking.append(waiter)
            else:
                batch.found(waiter, finding)
        return claim.held.difference(batch.wanted())

    def _wait_for_others(self, batch: Batch, claim: Claim) -> None:
        """Let requests wait for the calls that hold their numbers, and look again soon."""
        asking, batch.asking = batch.asking, []
        now, longest = self.clock(), 0.0
        for waiter in asking:
            if waiter.request.msisdn in claim.held:
                batch.asking.append(waiter)
            elif waiter.request.msisdn in claim.unaffordable:
                batch.stop(waiter, NoAnswer.BUDGET_SPENT)
            else:
                sent_at = claim.holders.get(waiter.request.msisdn or "")
                for one in batch.by_key[waiter.key]:
                    _note_sharing(one, now, sent_at)
                longest = max(longest, now - (waiter.sharing_since or now))
                batch.postpone(waiter, POLL_SECONDS)
        if longest > _LONG_WAIT_SECONDS and now - self._looked_at > _LONG_WAIT_SECONDS:
            self._looked_at = now
            self.store.give_up_dead_calls()


def _note_sharing(waiter: Waiter, now: float, sent_at: datetime | None) -> None:
    if waiter.sharing_since is None:
        waiter.sharing_since = now
    if sent_at is not None:
        waiter.shares_from = min(sent_at, waiter.request.received_at)
