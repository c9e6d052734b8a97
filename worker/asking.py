"""Asking: whether the provider may be asked for a batch's numbers, and what becomes of each request then.

The gate (the account cannot buy), the breaker (the provider fails) and the budget (enough for today) stand
before the purchase. A recharge they stop is told at once; an sms waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from worker import logs
from worker.batch import Batch
from worker.batching import Waiter
from worker.buyer import Buyer
from worker.errors import StorageUnavailable
from worker.portability.records import NoAnswer
from worker.portability.requests import Lane
from worker.purchase import Purchase
from worker.sharing import Sharing
from worker.storage import gate
from worker.storage.breaker import Breaker
from worker.storage.calls import EarlyClaim
from worker.storage.store import Known, Store

log = logs.get(__name__)

MOST_PURCHASES = 3
"""A number is bought at most so often for one request."""
MOST_FAILURES = 3
"""Failed calls, or pauses of a failing provider, after which a recharge is told so instead of waiting for
its expiry, and a number that is refused by itself is given up."""
_LONGEST_RETRY_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 1.0
"""Who waits for a failing provider looks at least so often whether another worker found it well."""
_SHORTEST_PAUSE_SECONDS = 0.02

NEVER_ANSWERED = (
    f"{MOST_PURCHASES} calls with this number were sent and their answers lost, so it may have been billed "
    "as often: see the worker's log, and replay it (presend dead replay) once the provider is well"
)


class Asking:
    """Step 3 of a batch: buy what nobody else is buying, as far as it may be bought."""

    def __init__(self, *, store: Store, sharing: Sharing, buyer: Buyer, account: str) -> None:
        self._store = store
        self._sharing = sharing
        self._buyer = buyer
        self._account = account

    def early(self, batch: Batch) -> EarlyClaim | None:
        """What may be claimed of a batch before anything is known of it."""
        return self._sharing.early(batch)

    def records_later(self, batch: Batch) -> bool:
        """Whether the records of a batch's numbers are read once these are held, not before."""
        return self._sharing.records_later(batch)

    def records_answered(self, batch: Batch, answered: int) -> None:
        """Note how many of a batch's requests were answered by records."""
        self._sharing.records_answered(batch, answered, len(batch.by_key))

    def ask(self, batch: Batch, known: Known) -> Purchase | None:
        """Buy the numbers that are asked for, and hand every waiter its number's answer."""
        if known.closed_gate is not None:
            asking, batch.asking = batch.asking, []
            _stop_at_gate(batch, asking)
        _give_up_bought_enough(batch)
        probing = known.breaker is not None and known.breaker.probing
        if known.breaker is not None:
            _hold_back(batch, known.breaker)
        if not batch.asking:
            self._sharing.leave(known)
            return None
        call, held = self._sharing.claim(batch, known)
        if not held:
            return None
        probe = self._may_probe(batch.lane) if probing else None
        if probing and probe is None:
            self._store.let_go(call.id, held, forget_call=True)
            for waiter in batch.asking:
                batch.postpone(waiter, _LOOK_AGAIN_SECONDS)
            return None
        purchase = self._buyer.buy(call, [each for each in batch.wanted() if each in held])
        for waiter in batch.asking:  # counted now: whatever goes wrong after this, it was paid for
            batch.bought(waiter, waiter.request.msisdn in purchase.bought)
        if purchase.defect is not None:
            for waiter in batch.asking:
                batch.bought(waiter, purchase.unanswered.get(waiter.request.msisdn or "", False))
            return purchase
        self._tell_others(batch.lane, purchase, failing=known.breaker is not None, probe=probe)
        if purchase.account_fault is not None:
            self._close_gate(str(purchase.account_fault))
        _hand_out(batch, purchase)
        return purchase

    def _may_probe(self, lane: Lane) -> datetime | None:
        return self._store.may_probe(self._account, lane, hold_seconds=self._buyer.hold_seconds(1))

    def _tell_others(self, lane: Lane, purchase: Purchase, *, failing: bool, probe: datetime | None) -> None:
        """Let every worker of the lane know that the provider fails, or that it answers again."""
        if not purchase.lost and not failing:
            return
        try:
            self._store.call_ended(self._account, lane, lost=purchase.lost, probe=probe)
        except StorageUnavailable as exc:  # the batch itself waits for Postgres next
            log.warning("breaker_not_set", lane=lane, error=str(exc))

    def _close_gate(self, reason: str) -> None:
        if self._store.close_gate(self._account, by=gate.BY_PROVIDER, reason=reason):
            log.error("gate_closed", reason=reason, next_step="mend the account; the gate opens by itself")


def _stop_at_gate(batch: Batch, waiters: Sequence[Waiter]) -> None:
    for waiter in waiters:
        batch.stop(waiter, NoAnswer.GATE_CLOSED)


def _give_up_bought_enough(batch: Batch) -> None:
    """Buy nothing a fourth time: three answers were paid for, and something kept each from its commit."""
    for waiter in [one for one in batch.asking if one.bought >= MOST_PURCHASES]:
        batch.asking.remove(waiter)
        if batch.lane is Lane.SMS:
            batch.reject(waiter, NEVER_ANSWERED)
        else:
            batch.found(waiter, NoAnswer.PROVIDER_FAILING)


def _hold_back(batch: Batch, breaker: Breaker) -> None:
    """The provider fails: ask nothing while the lane pauses, and then for one number only."""
    if not batch.asking or (breaker.pause_seconds <= 0 and not breaker.probing):
        return
    asking, batch.asking = batch.asking, []
    tried = asking[0].request.msisdn if breaker.pause_seconds <= 0 else None
    pause = min(_LOOK_AGAIN_SECONDS, max(breaker.pause_seconds, _SHORTEST_PAUSE_SECONDS))
    for waiter in asking:
        if tried is not None and waiter.request.msisdn == tried:
            batch.asking.append(waiter)
        elif batch.lane is Lane.SMS or breaker.pauses < MOST_FAILURES:
            batch.postpone(waiter, pause)
        else:
            batch.found(waiter, NoAnswer.PROVIDER_FAILING)
    if batch.lane is Lane.SMS:
        batch.outcome.pause_seconds = pause


def _hand_out(batch: Batch, purchase: Purchase) -> None:
    """Give every waiter the answer of its number; who has none waits, or is told, or is given up."""
    paid: set[str] = set()
    without: list[Waiter] = []
    for waiter in batch.asking:
        msisdn = waiter.request.msisdn or ""
        bought = purchase.bought.get(msisdn)
        if bought is None:
            without.append(waiter)
            continue
        # The first waiter of a number is the one who bought it.
        live = msisdn not in paid
        paid.add(msisdn)
        batch.found(waiter, bought.finding(live=live))
        if live:
            batch.call_ids[waiter.key] = bought.call.id
    if purchase.account_fault is not None:
        _stop_at_gate(batch, without)
    else:
        for waiter in without:
            _go_without(batch, waiter, purchase)


def _go_without(batch: Batch, waiter: Waiter, purchase: Purchase) -> None:
    """Wait for another call; who has waited for too many is told, or parked."""
    msisdn = waiter.request.msisdn or ""
    waiter.failures += 1
    batch.bought(waiter, purchase.unanswered[msisdn])
    if batch.lane is not Lane.SMS and waiter.failures >= MOST_FAILURES:
        batch.found(waiter, NoAnswer.PROVIDER_FAILING)
    elif waiter.bought >= MOST_PURCHASES:
        batch.reject(waiter, NEVER_ANSWERED)
    elif msisdn in purchase.refused and waiter.failures >= MOST_FAILURES:
        batch.reject(waiter, _refused(purchase.refused[msisdn]))
    else:
        batch.postpone(waiter, _retry_seconds(waiter.failures))


def _refused(code: int | None) -> str:
    """Why a number is given up that the provider refuses by itself, whatever else it answers."""
    return (
        f"the provider refused this number with code {code} {MOST_FAILURES} times, asked by itself and "
        "unbilled, while the account is well: ask the provider about it, then replay it (presend dead replay)"
    )


def _retry_seconds(failures: int) -> float:
    """How long a number that failed so often waits for its next call: 0.2 s doubling, at most 30 s."""
    return min(_LONGEST_RETRY_SECONDS, 0.1 * 2.0**failures)
